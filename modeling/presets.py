"""The members of the family by name. Imports no torch."""

from modeling.config import DecoderConfig
from modeling.errors import ModelError

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
