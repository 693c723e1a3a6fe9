"""Small decoders of every kind, and one whole decoder beside one over ranks, from the same weights."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from modeling.config import BlockSparse, DecoderConfig
from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.parallel.mesh import Mesh
from modeling.parallel.stream import ContextWay, Parallel
from modeling.parallel.weights import fill

PLAIN = DecoderConfig(vocab_size=37, hidden_size=24, intermediate_size=30, num_layers=2, num_heads=6, num_kv_heads=6, max_positions=64)
CONFIGS = {
    "plain": PLAIN,
    # 6 query heads on 4 ranks are 2, 2, 1, 1, and 3 key heads do not fall together with them.
    "grouped": replace(PLAIN, num_kv_heads=3, tied=True),
    "few keys": replace(PLAIN, num_kv_heads=1, rotary_fraction=0.5),
    "few heads": replace(PLAIN, num_heads=2, num_kv_heads=1, intermediate_size=3),
    "window": replace(PLAIN, num_kv_heads=2, window_keys=7),
    "small": DecoderConfig(
        vocab_size=37,
        hidden_size=32,
        intermediate_size=18,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        max_positions=64,
        tied=True,
        norm="layer",
        biased=True,
        feed_forward="geglu",
        grouped_qkv=True,
        mup=True,
        embedding_multiplier=10.0,
        logits_divisor=4.0,
        blocksparse=BlockSparse(block=4, local_blocks=2, vertical_stride=2),
        dummy_ids=(3, 36),
    ),
}
TOKENS = 21


@cache
def mesh_of(axes: tuple[tuple[str, int], ...]) -> Mesh:
    return Mesh(dict(axes))


def whole_decoder(name: str, attention: str = "sdpa") -> Decoder:
    """On one rank, float64, biases and norms away from their start so that every gradient matters."""
    decoder = initialise(Decoder(CONFIGS[name], attention), torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return decoder


def decoder_over(
    name: str, axes: tuple[tuple[str, int], ...], sequence: bool, context: ContextWay, recompute: str = "none", attention: str = "sdpa"
) -> Decoder:
    decoder = Decoder(CONFIGS[name], attention, parallel=Parallel(mesh_of(axes), sequence, context), recompute=recompute).double()
    fill(decoder, ((one, parameter.detach()) for one, parameter in whole_decoder(name).named_parameters()))
    return decoder


def rows(seed: int, packed: bool, batch: int = 2) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids, targets (some ignored), documents."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(4, 36, (batch, TOKENS), generator=generator)
    targets_BT = torch.randint(4, 36, (batch, TOKENS), generator=generator)
    targets_BT[:, 5] = -100
    documents_BT = torch.tensor([0] * 4 + [1] * 9 + [2] * 8).expand(batch, TOKENS) if packed else None
    return ids_BT, targets_BT, documents_BT
