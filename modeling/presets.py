"""The members of the family by name. Imports no torch."""

from dataclasses import replace

from modeling import longrope_factors
from modeling.config import BlockSparse, DecoderConfig
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

# The window of the long members is wider than their context: it hides nothing.
PHI3_MINI_128K = replace(
    PHI3_MINI_4K,
    max_positions=131_072,
    original_max_positions=4096,
    window_keys=262_144,
    rope_scaling=longrope_factors.PHI3_MINI_128K,
)

PHI3_MEDIUM_128K = replace(
    PHI3_MEDIUM_4K,
    max_positions=131_072,
    original_max_positions=4096,
    window_keys=131_072,
    rope_scaling=longrope_factors.PHI3_MEDIUM_128K,
)

PHI35_MINI = replace(PHI3_MINI_128K, rope_scaling=longrope_factors.PHI35_MINI)

# Entries of phi-3-small's vocabulary that no text uses: all from 100,256 on but <|endoftext|> 100257, three roles, and <|end|> 100266.
PHI3_SMALL_DUMMIES = (100_256, *range(100_258, 100_261), 100_264, 100_265, *range(100_267, 100_352))

PHI3_SMALL_8K = DecoderConfig(
    vocab_size=100_352,
    hidden_size=4096,
    intermediate_size=14_336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    max_positions=8192,
    rope_theta=1_000_000.0,
    tied=True,
    bos_id=100_257,
    eos_ids=(100_257, 100_266),
    pad_id=100_257,
    norm="layer",
    biased=True,
    feed_forward="geglu",
    grouped_qkv=True,
    mup=True,
    embedding_multiplier=10.0,
    logits_divisor=8.0,
    blocksparse=BlockSparse(),
    dummy_ids=PHI3_SMALL_DUMMIES,
    embedding_dropout=0.1,
    feed_forward_dropout=0.1,
)

PHI4_MINI = DecoderConfig(
    vocab_size=200_064,
    hidden_size=3072,
    intermediate_size=8192,
    num_layers=32,
    num_heads=24,
    num_kv_heads=8,
    max_positions=131_072,
    original_max_positions=4096,
    rope_scaling=longrope_factors.PHI4_MINI,
    rotary_fraction=0.75,
    window_keys=262_144,
    tied=True,
    bos_id=199_999,
    eos_ids=(199_999, 200_020),
    pad_id=199_999,
)

PHI4 = DecoderConfig(
    vocab_size=100_352,
    hidden_size=5120,
    intermediate_size=17_920,
    num_layers=40,
    num_heads=40,
    num_kv_heads=10,
    max_positions=16_384,
    rope_theta=250_000.0,
    bos_id=100_257,
    eos_ids=(100_257, 100_265),
    pad_id=100_349,
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

# For tests: every part of phi-3-small at the smallest size with two dense and two sparse layers, and blocks of every kind.
TINY_SMALL = DecoderConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    max_positions=64,
    rope_theta=1_000_000.0,
    tied=True,
    bos_id=1,
    eos_ids=(2, 3),
    pad_id=2,
    norm="layer",
    biased=True,
    feed_forward="geglu",
    grouped_qkv=True,
    mup=True,
    embedding_multiplier=10.0,
    logits_divisor=8.0,
    blocksparse=BlockSparse(block=4, local_blocks=2, vertical_stride=4),
    dummy_ids=(120, 122, 127),
    embedding_dropout=0.1,
    feed_forward_dropout=0.1,
)

PRESETS: dict[str, DecoderConfig] = {
    "phi3-mini-4k": PHI3_MINI_4K,
    "phi3-mini-128k": PHI3_MINI_128K,
    "phi3-small-8k": PHI3_SMALL_8K,
    "phi3-medium-4k": PHI3_MEDIUM_4K,
    "phi3-medium-128k": PHI3_MEDIUM_128K,
    "phi3.5-mini": PHI35_MINI,
    "phi4-mini": PHI4_MINI,
    "phi4": PHI4,
    "demo": DEMO,
    "tiny": TINY,
    "tiny-small": TINY_SMALL,
}

# Members whose longrope divisors stand in no source that this file could name: name -> the preset of the same weights' shapes.
FOLDER_ONLY = {"phi3-small-128k": "phi3-small-8k"}


def preset(name: str) -> DecoderConfig:
    """The member of that name; another name is an error that lists them."""
    if name in FOLDER_ONLY:
        raise ModelError(
            f"preset {name!r} has no longrope factors of its own: they stand in the released config.json only; "
            f"give the model's folder, or take {FOLDER_ONLY[name]!r}"
        )
    if name not in PRESETS:
        raise ModelError(f"no decoder preset {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]
