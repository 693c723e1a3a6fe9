"""Bytes that one rank sends per optimizer step, by collective, in closed form."""

from dataclasses import dataclass

from modeling.parallel.partition import balanced, starts
from training.plan.shape import Shape, head_loads, local_parameters


@dataclass(frozen=True)
class Transfer:
    """One kind of collective: over which axis, how often per step, and the bytes that a rank sends in a step."""

    name: str
    axis: str  # "same" (data x context), "tensor" or "context"
    calls: int
    bytes: int
    hidden: bool  # may go on behind arithmetic


def traffic_of(shape: Shape) -> list[Transfer]:
    """Everything that the most loaded rank sends in one step."""
    return [one for one in [*data_traffic(shape), *tensor_traffic(shape), *context_traffic(shape)] if one.bytes]


def item_bytes(shape: Shape) -> int:
    """Of one number between layers."""
    return 4 if shape.precision == "float32" else 2


def data_traffic(shape: Shape) -> list[Transfer]:
    """Gradients in float32 and new weights, among ranks that hold the same weights.

    A ring sends 2 (k - 1) / k of what is summed on all ranks and (k - 1) / k of what is scattered or gathered. Stages 0 and 1 sum once per
    step, stages 2 and 3 after every micro-batch; stage 3 gathers weights before every pass, forward and back.
    """
    k = shape.same
    if k == 1:
        return []
    held = max(local_parameters(shape.config, shape.tensor))
    item = 4 if shape.precision != "bfloat16-master" else 2
    ring = (k - 1) / k
    if shape.zero_stage == 0:
        return [Transfer("all-reduce of gradients", "same", 1, int(2 * ring * 4 * held), True)]
    if shape.zero_stage in (1, 2):
        sums = shape.accumulation if shape.zero_stage == 2 else 1
        return [
            Transfer("all-reduce of gradients", "same", sums, int(2 * ring * 4 * held) * sums, True),
            Transfer("all-gather of weights", "same", 1, int(ring * item * held), False),
        ]
    passes = 2 * shape.accumulation + (shape.accumulation if shape.recompute == "full" else 0)
    return [
        Transfer("reduce-scatter of gradients", "same", shape.accumulation, int(ring * 4 * held) * shape.accumulation, True),
        Transfer("all-gather of weights", "same", passes, int(ring * item * held) * passes, True),
    ]


def sum_sent(numbers: int, k: int, me: int = 0) -> int:
    """Numbers that a rank sends for a sum over k ranks: all to the other of two, else others' shares to them and its own sum to all."""
    share = balanced(numbers, k)[me]
    return numbers if k == 2 else numbers - share + (k - 1) * share


def tensor_layer_numbers(shape: Shape, me: int = 0) -> tuple[int, int]:
    """What one layer sends over "tensor" per forward pass, there and back: two sums each, or as many gathers and scatters of tokens."""
    k, width = shape.tensor, shape.config.hidden_size
    tokens = shape.micro_tokens // shape.micro_rows
    stream = shape.micro_rows * tokens * width
    if not shape.sequence:
        return 2 * sum_sent(stream, k, me), 2 * sum_sent(stream, k, me)
    mine = shape.micro_rows * balanced(tokens, k)[me] * width
    passes = 2 * ((k - 1) * mine + stream - mine)
    return passes, passes + 2 * sum_sent(width, k, me)


def tensor_traffic(shape: Shape) -> list[Transfer]:
    """Of all layers and micro-batches, recomputed forward passes counted again."""
    if shape.tensor == 1:
        return []
    there, back = tensor_layer_numbers(shape)
    again = 2 if shape.recompute != "none" else 1
    passes = shape.config.num_layers * shape.accumulation
    name = "gathers and scatters of tokens" if shape.sequence else "sums of the stream"
    found = [Transfer(name, "tensor", 4 * passes, (again * there + back) * item_bytes(shape) * passes, False)]
    loads = head_loads(shape.config, shape.tensor)
    fetched = max(one.needed - one.held for one in loads)
    if fetched > 0:
        rows = 2 * fetched * shape.config.head_dim * shape.config.hidden_size
        found.append(Transfer("rows of key heads", "tensor", 2 * passes, 2 * rows * item_bytes(shape) * passes, False))
    return found


def context_layer_numbers(shape: Shape, me: int = 0) -> tuple[int, int]:
    """What one layer sends over "context" per forward pass, there and back, from context rank `me`."""
    config, k, rows = shape.config, shape.context_ranks, shape.micro_rows
    lengths = balanced(shape.context, k)
    mine, dim = lengths[me], config.head_dim
    if shape.context_way == "ulysses":
        heads = balanced(config.num_heads, k)
        firsts = starts(heads)
        group = config.num_heads // config.num_kv_heads
        needed = [len({(first + head) // group for head in range(count)}) for first, count in zip(firsts, heads, strict=True)]
        away, home = mine * dim * (config.num_heads - heads[me]), heads[me] * (shape.context - mine) * dim
        there = away + home + 2 * mine * dim * (sum(needed) - needed[me])
        return rows * there, rows * (away + home + 2 * needed[me] * (shape.context - mine) * dim)
    token = 2 * rows * config.num_kv_heads * dim
    if shape.context_way == "ring":
        held = [token * lengths[(me - turned) % k] for turned in range(k)]
        return sum(held[:-1]), sum(held[:-1]) + sum(held)
    reach, first = (config.window_keys or 1) - 1, starts(lengths)

    def from_me(other: int) -> int:
        begin, end = max(0, first[other] - reach), first[other]
        return max(0, min(end, first[me] + mine) - max(begin, first[me]))

    return token * sum(from_me(other) for other in range(me + 1, k)), token * (first[me] - max(0, first[me] - reach))


def context_traffic(shape: Shape) -> list[Transfer]:
    """Of all layers and micro-batches, from the rank that sends most."""
    if shape.context_ranks == 1:
        return []
    pairs = [context_layer_numbers(shape, me) for me in range(shape.context_ranks)]
    again = 2 if shape.recompute == "full" else 1
    most = max(again * there + back for there, back in pairs) // shape.tensor
    passes = shape.config.num_layers * shape.accumulation
    return [Transfer(f"{shape.context_way} of keys and queries", "context", 2 * passes, most * item_bytes(shape) * passes, False)]
