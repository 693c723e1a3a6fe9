"""One way to lay a decoder over ranks, and how much of it the most loaded rank has. Exact counts."""

from dataclasses import dataclass

from data_pipeline.errors import InputError
from modeling.config import DecoderConfig
from modeling.counts import norm_parameters
from modeling.parallel.partition import balanced


@dataclass(frozen=True)
class Shape:
    """A decoder in training: over so many ranks, so many rows of a step."""

    config: DecoderConfig
    context: int  # tokens of a row
    rows_per_step: int
    ranks: int
    zero_stage: int = 2
    tensor: int = 1
    context_ranks: int = 1
    context_way: str = "ulysses"
    sequence: bool = False
    micro_rows: int = 1
    recompute: str = "none"
    precision: str = "bfloat16-master"
    offload: bool = False
    compiled: bool = False  # torch.compile of the layers, which keeps less for the way back

    @property
    def data(self) -> int:
        return self.ranks // (self.tensor * self.context_ranks)

    @property
    def same(self) -> int:
        """Ranks that hold the same weights."""
        return self.data * self.context_ranks

    @property
    def accumulation(self) -> int:
        """Forward passes per step and rank."""
        return self.rows_per_step // self.data // self.micro_rows

    @property
    def micro_tokens(self) -> int:
        """Tokens of a forward pass on the context rank that has most."""
        return self.micro_rows * max(balanced(self.context, self.context_ranks))

    @property
    def tokens_per_step(self) -> int:
        return self.rows_per_step * self.context

    def check(self) -> None:
        """Refuses what cannot be laid so, in one line each."""
        copy = self.tensor * self.context_ranks
        if self.ranks % copy:
            raise InputError(
                f"tensor {self.tensor} x context {self.context_ranks} needs a multiple of {copy} ranks, there are {self.ranks}"
            )
        if self.rows_per_step % self.data:
            raise InputError(f"{self.rows_per_step} rows of a step cannot be dealt to {self.data} data ranks evenly")
        if (self.rows_per_step // self.data) % self.micro_rows:
            raise InputError(f"{self.rows_per_step // self.data} rows of a rank are no multiple of {self.micro_rows} at a time")
        if self.tensor > self.config.num_heads:
            raise InputError(f"tensor {self.tensor}: there are {self.config.num_heads} query heads, some ranks would have none")
        if self.config.embedding_dropout and self.tensor > 1:
            raise InputError("dropout over tensor ranks is not offered; tensor 1, or no dropout")
        if self.context_way == "halo" and self.config.window_keys is None:
            raise InputError("halo sends the window's keys, and this decoder has no window; ulysses or ring")
        if self.context_ranks > 1 and self.config.blocksparse is not None and self.context_way != "ulysses":
            raise InputError("blocksparse attention over context ranks is for ulysses")


@dataclass(frozen=True)
class HeadLoad:
    """Query heads, key heads held, and key heads computed with on one tensor rank."""

    queries: int
    held: int
    needed: int


def head_loads(config: DecoderConfig, tensor: int) -> list[HeadLoad]:
    """Every tensor rank's heads: both kinds dealt in balanced blocks; what a rank's queries need and another holds is fetched."""
    group = config.num_heads // config.num_kv_heads
    loads, first = [], 0
    for queries, held in zip(balanced(config.num_heads, tensor), balanced(config.num_kv_heads, tensor), strict=True):
        needed = (first + queries - 1) // group - first // group + 1 if queries else 0
        loads.append(HeadLoad(queries, held, needed))
        first += queries
    return loads


def uneven_heads(config: DecoderConfig, tensor: int) -> str | None:
    """What it costs that tensor ranks do not divide the heads; None where they do."""
    if config.num_kv_heads % tensor == 0 and config.num_heads % tensor == 0:
        return None
    loads = head_loads(config, tensor)
    most, mean = max(one.queries for one in loads), config.num_heads / tensor
    twice = sum(one.needed for one in loads) - config.num_kv_heads
    matrices = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    extra = 2 * twice * config.head_dim / matrices
    whole = 2 * (config.num_kv_heads * tensor - config.num_kv_heads) * config.head_dim / matrices
    return (
        f"{config.num_kv_heads} key heads on {tensor} tensor ranks: {most} query heads on the most loaded rank (mean {mean:g}), "
        f"{twice} key heads computed on two ranks, {extra:.1%} more of the fused product; with all key heads on every rank {whole:.1%} more"
    )


def local_parameters(config: DecoderConfig, tensor: int) -> list[int]:
    """Parameters that each tensor rank holds."""
    found = []
    parts = zip(head_loads(config, tensor), balanced(config.intermediate_size, tensor), balanced(config.vocab_size, tensor), strict=True)
    for heads, hidden, vocabulary in parts:
        qkv = (heads.queries + 2 * heads.held) * config.head_dim
        layer = config.hidden_size * (qkv + heads.queries * config.head_dim + 3 * hidden) + 2 * norm_parameters(config)
        if config.biased:
            layer += qkv + 2 * hidden + 2 * config.hidden_size
        ends = vocabulary * config.hidden_size * (1 if config.tied else 2) + norm_parameters(config)
        found.append(config.num_layers * layer + ends)
    return found
