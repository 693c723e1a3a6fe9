"""The sizes of a decoder, and the members of the family by name. Imports no torch."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from modeling.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """The two sets of divisors that stretch the rotary angles past the length a model was first trained at (arXiv 2402.13753).

    Each set has one divisor per rotated pair of features. `attention_factor` multiplies cos and sin in both regimes; None takes
    sqrt(1 + ln(max / original) / ln(original)).
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    attention_factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides a decoder's shapes and arithmetic; nonsense is refused with the numbers that disagree.

    `window_keys` counts the keys that a token attends to, itself included, as transformers counts `sliding_window`; None is no window.
    `max_positions` is the longest context, `original_max_positions` the longest before longrope stretched it (None: the same).
    `eos_ids` are the ids that end generation; an empty tuple where the tokenizer is not known yet.
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

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_heads()
        self._check_rope()
        self._check_ids()

    @property
    def head_dim(self) -> int:
        """Features per head."""
        return self.hidden_size // self.num_heads

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
        """What multiplies cos and sin: 1 without longrope."""
        if self.rope_scaling is None:
            return 1.0
        if self.rope_scaling.attention_factor is not None:
            return self.rope_scaling.attention_factor
        stretch = self.max_positions / self.original_positions
        return 1.0 if stretch <= 1.0 else math.sqrt(1 + math.log(stretch) / math.log(self.original_positions))

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
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"not a decoder's configuration: {error}") from error

    def _check_counts(self) -> None:
        names = ["vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "max_positions"]
        names += [name for name in ("original_max_positions", "window_keys") if getattr(self, name) is not None]
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("rope_theta", "norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ModelError(f"{name} must be a number above 0, got {value!r}")

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
        for name in ("short_factors", "long_factors"):
            factors = getattr(self.rope_scaling, name)
            if len(factors) != self.rotary_dim // 2:
                raise ModelError(
                    f"rope_scaling has {len(factors)} {name} where {self.rotary_dim} rotated features need {self.rotary_dim // 2}"
                )
            bad = [factor for factor in factors if not isinstance(factor, int | float) or not 0 < factor < math.inf]
            if bad:
                raise ModelError(f"rope_scaling {name} must be numbers above 0, got {bad[0]!r}")

    def _check_ids(self) -> None:
        named = [("bos_id", self.bos_id), ("pad_id", self.pad_id), *(("eos_ids", one) for one in self.eos_ids)]
        for name, value in named:
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self.vocab_size:
                raise ModelError(f"{name} must be a token id from 0 to vocab_size-1={self.vocab_size - 1}, got {value!r}")


PHI3_MINI_4K = DecoderConfig(
    vocab_size=32_064,
    hidden_size=3072,
    intermediate_size=8192,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    max_positions=4096,
    window_keys=2047,
    bos_id=1,
    eos_ids=(32_000, 32_007),
    pad_id=32_000,
)

PHI3_MEDIUM_4K = DecoderConfig(
    vocab_size=32_064,
    hidden_size=5120,
    intermediate_size=17_920,
    num_layers=40,
    num_heads=40,
    num_kv_heads=10,
    max_positions=4096,
    window_keys=2047,
    bos_id=1,
    eos_ids=(32_000, 32_007),
    pad_id=32_000,
)

# About 3M parameters: what two CPU cores can teach something in minutes. Token ids come with the tokenizer.
DEMO = DecoderConfig(
    vocab_size=4096,
    hidden_size=192,
    intermediate_size=512,
    num_layers=5,
    num_heads=6,
    num_kv_heads=6,
    max_positions=512,
    tied=True,
)

# For tests: every part at the smallest size that still has several heads, grouped keys and a window.
TINY = DecoderConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    max_positions=64,
    window_keys=21,
    bos_id=1,
    eos_ids=(2, 3),
    pad_id=2,
)

PRESETS: dict[str, DecoderConfig] = {
    "phi3-mini-4k": PHI3_MINI_4K,
    "phi3-medium-4k": PHI3_MEDIUM_4K,
    "demo": DEMO,
    "tiny": TINY,
}


def preset(name: str) -> DecoderConfig:
    """The member of that name; another name is an error that lists them."""
    if name not in PRESETS:
        raise ModelError(f"no decoder preset {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]
