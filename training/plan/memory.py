"""Bytes of the most loaded rank by kind. Weights, gradients and moments are exact; activations count what autograd keeps of our layers.

What DeepSpeed holds beside the state follows from its sources (0.19): stages 1 to 3 keep float32 masters also of float32 weights; stage 1
keeps whole gradients until the step, stage 2 only its part of them and a bucket on the way.
"""

from dataclasses import dataclass

from modeling.config import DecoderConfig
from training.plan.shape import Shape, head_loads, local_parameters

BUCKET_ELEMENTS = 50_000_000  # training.zero.BUCKET_ELEMENTS, whose module loads torch
WHOLE_ELEMENTS = 500_000_000  # DeepSpeed's elements_per_buffer, with which its bfloat16 stage 1 sums gradients
LIVE_ELEMENTS = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters: weights that stay gathered
LOSS_TOKENS = 4096  # modeling.loss.CHUNK_TOKENS_ELSEWHERE: tokens whose logits exist at a time on a GPU


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank by kind."""

    weights: int
    gradients: int
    optimizer: int  # masters and both moments
    activations: int
    logits: int
    buffers: int
    host: int = 0  # of `optimizer`, what lies in host memory instead
    reused: int = 0  # of `gradients`, what takes room that activations have left by then

    @property
    def total(self) -> int:
        held = self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers
        return held - self.host - self.reused

    def by_kind(self) -> dict[str, int]:
        kinds = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "host", "reused")
        return {kind: getattr(self, kind) for kind in kinds} | {"total": self.total}


def memory_of(shape: Shape, loss_tokens: int = LOSS_TOKENS) -> Memory:
    """The most loaded rank's bytes."""
    held = max(local_parameters(shape.config, shape.tensor))
    part = -(-held // shape.same)
    wide = shape.precision != "bfloat16-master"
    item = 4 if wide else 2
    divided = shape.zero_stage > 0 and shape.ranks > 1
    weights = item * (part if divided and shape.zero_stage == 3 else held)
    masters = 4 * (part if divided else held) if divided or not wide else 0
    moments = 8 * (part if divided else held)
    gradients = 4 * (part if divided and shape.zero_stage >= 2 else held)
    bucket = min(BUCKET_ELEMENTS, held)
    buffers = 0
    summed_at_end = divided and shape.zero_stage == 1 and not wide  # DeepSpeed's BF16_Optimizer
    if divided:
        buffers += 4 * (min(WHOLE_ELEMENTS, held) if summed_at_end else bucket)  # gradients on the way
        if shape.zero_stage == 3:
            buffers += item * min(held, max(LIVE_ELEMENTS, widest_layer(shape.config, shape.tensor)))  # gathered weights
    if shape.precision == "bfloat16":
        buffers += 2 * held  # autocast's copies of the weights, kept for the way back
    activations = activation_bytes(shape)
    # With one micro-batch a step a layer's gradients come when its activations go; with several, or in buffers that last (our buckets of
    # stage 0, the flat ones of stage 3 and of stage 1 in bfloat16), they are there all the time.
    lasting = shape.accumulation > 1 or (shape.zero_stage in (0, 3) and shape.same > 1) or summed_at_end
    reused = 0 if lasting else min(gradients, activations)
    logits = logits_bytes(shape, loss_tokens)
    if divided and shape.zero_stage in (1, 2) and not summed_at_end:
        buffers += max(0, 4 * part - (activations - reused + logits))  # a flat copy of this rank's while it steps, when those are gone
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=masters + moments,
        activations=activations,
        reused=reused,
        logits=logits,
        buffers=buffers,
        host=masters + moments if shape.offload and divided else 0,
    )


def widest_layer(config: DecoderConfig, tensor: int) -> int:
    """Parameters of a layer, or of the embedding where that is more: what stage 3 gathers at once at least."""
    layers = (max(local_parameters(config, tensor)) - -(-config.vocab_size // tensor) * config.hidden_size) // config.num_layers
    return max(layers, -(-config.vocab_size // tensor) * config.hidden_size)


@dataclass(frozen=True)
class LayerWidths:
    """What one layer of the most loaded tensor rank is wide, in bytes of one token unless it says otherwise."""

    stream: int  # the residual stream: float32 under autocast, else the weights' dtype
    kept_stream: int  # this rank's part of it, under sequence parallelism
    read: int  # what a product reads: a norm's result, always whole
    kept_result: int  # what a product adds to the stream, this rank's part
    wide: int  # this rank's part of the stream in float32
    queries: int
    keys: int
    hidden: int
    heads: int  # query heads, a count


def layer_widths(config: DecoderConfig, tensor: int, sequence: bool, precision: str) -> LayerWidths:
    loads = head_loads(config, tensor)
    heads = max(one.queries for one in loads)
    item = 4 if precision == "float32" else 2
    stream = 2 if precision == "bfloat16-master" else 4  # between blocks; under autocast it stays float32
    part = config.hidden_size // (tensor if sequence else 1)
    return LayerWidths(
        stream=stream,
        kept_stream=stream * part,
        read=item * config.hidden_size,
        kept_result=item * part,
        wide=4 * part,
        queries=item * heads * config.head_dim,
        keys=item * max(one.needed for one in loads) * config.head_dim,
        hidden=item * -(-config.intermediate_size // tensor),
        heads=heads,
    )


def layer_token_bytes(
    config: DecoderConfig, tensor: int = 1, sequence: bool = False, precision: str = "bfloat16-master", compiled: bool = False
) -> int:
    """What one layer keeps of one token for its way back, nothing made again by `recompute`.

    Of a root-mean-square norm: its input in float32, the normalised values, the result that a product reads; of LayerNorm input,
    result and two numbers. Of attention: the fused product, rotated queries and keys, the result, the log-sum of each head. Of SwiGLU: gate
    and up, the activated gate, the product; of the clamped GEGLU also its clamps, their masks and the sigmoid, and the mask of dropout.

    Compiled (torch's min-cut partition), what is cheap is made again: of each norm its numbers and its result stay, of the sum before the
    second norm what attention adds to the layer's input, of either feed-forward its first product and what the second one reads.
    """
    one = layer_widths(config, tensor, sequence, precision)
    numbers = 4 * one.stream if config.norm == "layer" else 8  # of both norms
    attention = 3 * one.queries + 3 * one.keys + 4 * one.heads
    if compiled:
        mask = config.hidden_size if config.feed_forward_dropout else 0
        return one.kept_stream + one.kept_result + 2 * one.read + numbers + attention + 3 * one.hidden + mask
    if config.norm == "layer":
        norms = 2 * (one.kept_stream + one.read) + numbers
    else:
        norms = 2 * (one.wide + one.kept_stream + one.read) + numbers
    blocks = 4 * one.hidden if config.feed_forward == "swiglu" else 7 * one.hidden + 2 * -(-config.intermediate_size // tensor)
    dropped = one.read if config.feed_forward_dropout else 0
    return norms + attention + blocks + dropped


def kept_token_bytes(
    config: DecoderConfig,
    recompute: str,
    tensor: int = 1,
    sequence: bool = False,
    precision: str = "bfloat16-master",
    compiled: bool = False,
) -> int:
    """What a layer keeps of one token under a choice of recomputation: all, the products' results, or its input alone."""
    if recompute == "none":
        return layer_token_bytes(config, tensor, sequence, precision, compiled)
    one = layer_widths(config, tensor, sequence, precision)
    if recompute == "full":
        return one.kept_stream
    last = 0 if compiled else one.read  # the last product's result, which nothing on the way back reads
    return one.kept_stream + 2 * one.queries + 2 * one.keys + one.read + 2 * one.hidden + last + 4 * one.heads


def activation_bytes(shape: Shape) -> int:
    """All layers' of one forward pass, and under recomputation one layer's that is made again."""
    config = shape.config
    arguments = (shape.tensor, shape.sequence, shape.precision, shape.compiled)
    kept = config.num_layers * kept_token_bytes(config, shape.recompute, *arguments)
    again = layer_token_bytes(config, *arguments) if shape.recompute != "none" else 0
    ends = 3 * 4 * config.hidden_size  # embedding, last norm
    return shape.micro_tokens * (kept + again + ends)


def logits_bytes(shape: Shape, loss_tokens: int = LOSS_TOKENS) -> int:
    """A chunk's logits and their gradient in float32, the head's gradient summed over chunks, the hidden states' gradient."""
    config = shape.config
    vocabulary = -(-config.vocab_size // shape.tensor)
    tokens = min(loss_tokens, shape.micro_tokens)
    item = 4 if shape.precision == "float32" else 2
    return tokens * vocabulary * (4 + item) + 4 * vocabulary * config.hidden_size + item * shape.micro_tokens * config.hidden_size
