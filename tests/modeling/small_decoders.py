"""Small decoders with random weights for the tests of this room."""

import dataclasses

import torch

from modeling.config import BlockSparse, DecoderConfig, LongRope
from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.presets import TINY

MEMBERS: dict[str, DecoderConfig] = {
    "mha": dataclasses.replace(TINY, num_kv_heads=4, window_keys=None),
    "gqa": dataclasses.replace(TINY, window_keys=None),
    "window": dataclasses.replace(TINY, num_kv_heads=4),
    "window-gqa": TINY,
    "tied": dataclasses.replace(TINY, tied=True, window_keys=None),
    "partial-rotary": dataclasses.replace(TINY, hidden_size=64, rotary_fraction=0.75, window_keys=None),
    "tied-partial-rotary": dataclasses.replace(TINY, hidden_size=64, rotary_fraction=0.75, tied=True, window_keys=None),
    "longrope": dataclasses.replace(
        TINY,
        window_keys=None,
        original_max_positions=32,
        rope_scaling=LongRope(short_factors=(1.0, 1.1, 1.2, 1.3), long_factors=(2.0, 3.0, 4.0, 5.5)),
    ),
}

# phi-3-small's parts, which transformers does not have: blocks of 4, two local ones, every fourth beyond them.
SMALL = dataclasses.replace(
    TINY,
    num_layers=3,
    window_keys=None,
    tied=True,
    rope_theta=1e6,
    norm="layer",
    biased=True,
    feed_forward="geglu",
    grouped_qkv=True,
    mup=True,
    embedding_multiplier=10.0,
    logits_divisor=8.0,
    blocksparse=BlockSparse(block=4, local_blocks=2, vertical_stride=4),
    dummy_ids=(120, 125),
)


def random_decoder(config: DecoderConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Decoder:
    """A seeded decoder whose norm weights are not all 1 and whose logits are not near 0, so that a wrong order of operations shows."""
    generator = torch.Generator().manual_seed(seed)
    decoder = initialise(Decoder(config), generator)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.mul_(5.0)
    return decoder.to(dtype)


def random_ids(batch: int, tokens: int, vocab_size: int = 128, seed: int = 1) -> torch.Tensor:
    """Seeded token ids (batch, tokens)."""
    return torch.randint(0, vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(seed))
