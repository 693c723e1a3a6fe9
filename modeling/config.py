"""The sizes of a decoder, and the members of the family by name. Imports no torch."""

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from modeling.errors import ModelError

# What sizes fit: torch counts bytes in 63 bits, and a decoder of more layers would be built for minutes before anything is said.
COUNTS_BELOW = 2**31
NUMBERS_BELOW = 2**60
MOST_LAYERS = 10_000


def is_count(value: Any) -> bool:
    """A whole number of at least 1; true is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_positive(value: Any) -> bool:
    """A number above 0 that a float can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """The two sets of divisors that stretch the rotary angles past the length a model was first trained at (arXiv 2402.13753).

    Each set has one divisor per rotated pair of features. `attention_factor` multiplies cos and sin; None takes
    sqrt(1 + ln(max / original) / ln(original)). `long_attention_factor` is another one for the long set; None is the same for both.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    attention_factor: float | None = None
    long_attention_factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class BlockSparse:
    """Which blocks of keys a query sees in a sparse layer of phi-3-small (arXiv 2404.14219, section 2; constants from its configuration).

    Positions are cut into blocks of `block`. The query of block i sees block j <= i when i - j < local_blocks, or when
    (j + h * step + 1) % vertical_stride == 0 for its head h of `num_heads`, with step = max(1, vertical_stride // num_heads), or 0 where
    `same_heads`; within a block it sees no later key. Layer n (from 0) is dense when (n + 1) % dense_every == 0.
    """

    block: int = 64
    local_blocks: int = 16
    vertical_stride: int = 8
    dense_every: int = 2
    same_heads: bool = False

    def is_dense(self, layer: int) -> bool:
        """Whether that layer sees every earlier key."""
        return (layer + 1) % self.dense_every == 0

    def head_offset(self, head: int, num_heads: int) -> int:
        """r such that the head's vertical blocks are those with (j + r) % vertical_stride == 0; heads of equal r see the same blocks."""
        step = 0 if self.same_heads else max(1, self.vertical_stride // num_heads)
        return (head * step + 1) % self.vertical_stride


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides a decoder's shapes and arithmetic; nonsense is refused with the numbers that disagree.

    `window_keys` counts the keys that a token attends to, itself included, as transformers counts `sliding_window`; None is no window.
    `max_positions` is the longest context, `original_max_positions` the longest before longrope stretched it (None: the same).
    `eos_ids` are the ids that end generation; an empty tuple where the tokenizer is not known yet.

    The rest is phi-3-small's, and off elsewhere. `norm` "layer" is LayerNorm with biases, `biased` gives each projection of a layer a bias,
    `feed_forward` "geglu" interleaves gate and linear rows and clamps both at `geglu_limit`, `grouped_qkv` orders the fused rows
    [q..q, k, v] per key head instead of [Q | K | V]. `mup` makes attention's scale 1/head_dim instead of 1/sqrt(head_dim), multiplies
    embeddings by `embedding_multiplier` and divides logits by `logits_divisor`, which is the width over the width of muP's base model.
    Logits of `dummy_ids`, entries that name no token, are -inf. Dropout acts in training mode only.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int
    original_max_positions: int | None = None
    rope_theta: float = 10_000.0
    rope_scaling: LongRope | None = None
    rotary_fraction: float = 1.0
    window_keys: int | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    initializer_range: float = 0.02
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    norm: Literal["rms", "layer"] = "rms"
    biased: bool = False
    feed_forward: Literal["swiglu", "geglu"] = "swiglu"
    geglu_limit: float = 20.0
    grouped_qkv: bool = False
    mup: bool = False
    embedding_multiplier: float = 1.0
    logits_divisor: float = 1.0
    blocksparse: BlockSparse | None = None
    dummy_ids: tuple[int, ...] = ()
    embedding_dropout: float = 0.0
    feed_forward_dropout: float = 0.0

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_counts()
        self._check_heads()
        self._check_rope()
        self._check_ids()
        self._check_small()

    @property
    def head_dim(self) -> int:
        """Features per head."""
        return self.hidden_size // self.num_heads

    @property
    def attention_scale(self) -> float:
        """What multiplies the scores."""
        return 1.0 / self.head_dim if self.mup else self.head_dim**-0.5

    def sparse_in(self, layer: int) -> bool:
        """Whether that layer (from 0) attends blocksparsely."""
        return self.blocksparse is not None and not self.blocksparse.is_dense(layer)

    @property
    def rotary_dim(self) -> int:
        """Features per head that are rotated; the rest pass through."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def original_positions(self) -> int:
        """The longest context before longrope."""
        return self.max_positions if self.original_max_positions is None else self.original_max_positions

    @property
    def rope_attention_factor(self) -> float:
        """What multiplies cos and sin of the short set: 1 without longrope."""
        if self.rope_scaling is None:
            return 1.0
        if self.rope_scaling.attention_factor is not None:
            return self.rope_scaling.attention_factor
        stretch = self.max_positions / self.original_positions
        return 1.0 if stretch <= 1.0 else math.sqrt(1 + math.log(stretch) / math.log(self.original_positions))

    @property
    def rope_long_attention_factor(self) -> float:
        """What multiplies cos and sin of the long set."""
        given = None if self.rope_scaling is None else self.rope_scaling.long_attention_factor
        return self.rope_attention_factor if given is None else given

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the configuration again."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "DecoderConfig":
        """The configuration that `to_dict` wrote, lists for tuples as JSON has them."""
        if not isinstance(values, dict):
            raise ModelError(f"a decoder's configuration must be a table, got {type(values).__name__}")
        try:
            values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            if isinstance(values.get("rope_scaling"), dict):
                rope: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values["rope_scaling"].items()}
                values["rope_scaling"] = LongRope(**rope)
            if isinstance(values.get("blocksparse"), dict):
                values["blocksparse"] = BlockSparse(**values["blocksparse"])
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"not a decoder's configuration: {error}") from error

    def _check_kinds(self) -> None:
        for name, kind in (("rope_scaling", LongRope), ("blocksparse", BlockSparse)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ModelError(f"{name} must be a {kind.__name__} or None, got {value!r}")
        for name in ("eos_ids", "dummy_ids"):
            if not isinstance(getattr(self, name), tuple | list):
                raise ModelError(f"{name} must be a tuple of token ids, got {getattr(self, name)!r}")
        for name in ("tied", "biased", "grouped_qkv", "mup"):
            if not isinstance(getattr(self, name), bool):
                raise ModelError(f"{name} must be true or false, got {getattr(self, name)!r}")

    def _check_counts(self) -> None:
        names = ["vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "max_positions"]
        names += [name for name in ("original_max_positions", "window_keys") if getattr(self, name) is not None]
        for name in names:
            value = getattr(self, name)
            if not is_count(value):
                raise ModelError(f"{name} must be a whole number of at least 1, got {value!r:.60}")
            if value >= COUNTS_BELOW:
                raise ModelError(f"{name} must be below {COUNTS_BELOW}, got {value!r:.60}")
        if self.num_layers > MOST_LAYERS:
            raise ModelError(f"num_layers must be at most {MOST_LAYERS}, got {self.num_layers}")
        rows = max(self.vocab_size, 2 * self.intermediate_size, 3 * self.hidden_size)
        if rows * self.hidden_size >= NUMBERS_BELOW:
            raise ModelError(f"a matrix of {rows} rows of hidden_size={self.hidden_size} is more than memory can be")
        for name in ("rope_theta", "norm_eps", "initializer_range"):
            if not is_positive(getattr(self, name)):
                raise ModelError(f"{name} must be a number above 0, got {getattr(self, name)!r:.60}")

    def _check_heads(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ModelError(f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}")

    def _check_rope(self) -> None:
        if not isinstance(self.rotary_fraction, int | float) or not 0 < self.rotary_fraction <= 1:
            raise ModelError(f"rotary_fraction must be above 0 and at most 1, got {self.rotary_fraction!r}")
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise ModelError(
                f"rotary_fraction={self.rotary_fraction} of head_dim={self.head_dim} rotates {self.rotary_dim} features; "
                "an even number is needed"
            )
        if self.original_positions > self.max_positions:
            raise ModelError(f"original_max_positions={self.original_positions} is above max_positions={self.max_positions}")
        if self.rope_scaling is None:
            return
        if self.rope_scaling.attention_factor is None and self.original_positions == 1 < self.max_positions:
            raise ModelError("original_max_positions must be at least 2 where longrope's attention_factor is made of its logarithm, got 1")
        for name in ("attention_factor", "long_attention_factor"):
            value = getattr(self.rope_scaling, name)
            if value is not None and not is_positive(value):
                raise ModelError(f"rope_scaling {name} must be a number above 0, got {value!r:.60}")
        for name in ("short_factors", "long_factors"):
            factors = getattr(self.rope_scaling, name)
            if len(factors) != self.rotary_dim // 2:
                raise ModelError(
                    f"rope_scaling has {len(factors)} {name} where {self.rotary_dim} rotated features need {self.rotary_dim // 2}"
                )
            bad = [factor for factor in factors if not is_positive(factor)]
            if bad:
                raise ModelError(f"rope_scaling {name} must be numbers above 0, got {bad[0]!r:.60}")

    def _check_ids(self) -> None:
        named = [
            ("bos_id", self.bos_id),
            ("pad_id", self.pad_id),
            *(("eos_ids", one) for one in self.eos_ids),
            *(("dummy_ids", one) for one in self.dummy_ids),
        ]
        for name, value in named:
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self.vocab_size:
                raise ModelError(f"{name} must be a token id from 0 to vocab_size-1={self.vocab_size - 1}, got {value!r}")

    def _check_small(self) -> None:
        for name, allowed in (("norm", ("rms", "layer")), ("feed_forward", ("swiglu", "geglu"))):
            if getattr(self, name) not in allowed:
                raise ModelError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("geglu_limit", "embedding_multiplier", "logits_divisor"):
            if not is_positive(getattr(self, name)):
                raise ModelError(f"{name} must be a number above 0, got {getattr(self, name)!r:.60}")
        for name in ("embedding_dropout", "feed_forward_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
                raise ModelError(f"{name} must be at least 0 and below 1, got {value!r}")
        if self.blocksparse is None:
            return
        if self.window_keys is not None:
            raise ModelError(f"blocksparse attention has no window, got window_keys={self.window_keys}")
        for name in ("block", "local_blocks", "vertical_stride", "dense_every"):
            value = getattr(self.blocksparse, name)
            if not is_count(value) or value >= COUNTS_BELOW:
                raise ModelError(f"blocksparse {name} must be a whole number of at least 1 and below {COUNTS_BELOW}, got {value!r:.60}")
