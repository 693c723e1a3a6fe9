"""Recomputed layers give the same gradients, keep less, and make again only what they should."""

import dataclasses
from typing import Any

import pytest
import torch
from small_decoders import MEMBERS, random_decoder, random_ids
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.presets import TINY
from modeling.recompute import RECOMPUTE

DROPOUT = dataclasses.replace(
    TINY, norm="layer", biased=True, feed_forward="geglu", grouped_qkv=True, mup=True, window_keys=None, feed_forward_dropout=0.3
)


def trained(config: DecoderConfig, recompute: str, packed: bool = False) -> list[torch.Tensor]:
    """The gradients of one pass, the same random numbers each time."""
    decoder = random_decoder(config)
    decoder.recompute = recompute
    torch.manual_seed(4)
    documents_BT = (torch.arange(24) // 9)[None].expand(2, -1) if packed else None
    decoder.loss(random_ids(2, 24), random_ids(2, 24, seed=9), documents_BT=documents_BT).backward()
    return [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("config", [MEMBERS["gqa"], MEMBERS["window"], DROPOUT], ids=["gqa", "window", "dropout"])
def test_gradients_are_the_same_bits(config: DecoderConfig, recompute: str) -> None:
    for packed in (False, True):
        for mine, theirs in zip(trained(config, recompute, packed), trained(config, "none", packed), strict=True):
            assert torch.equal(mine, theirs)


def test_dropout_does_draw() -> None:
    """Without this the equality above would say nothing of random numbers."""
    dry = dataclasses.replace(DROPOUT, feed_forward_dropout=0.0)
    assert not torch.equal(trained(DROPOUT, "full")[0], trained(dry, "full")[0])


class Products(TorchDispatchMode):
    """Counts matrix products, kernels of attention, and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"mm": 0, "attention": 0, "silu": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        self.counts["mm"] += name == "aten::mm"
        self.counts["attention"] += name == "aten::_scaled_dot_product_flash_attention_for_cpu"
        self.counts["silu"] += name == "aten::silu"
        return func(*args, **(kwargs or {}))


def test_full_makes_everything_again_and_selective_only_what_is_cheap() -> None:
    counted = {}
    for recompute in RECOMPUTE:
        with Products() as products:
            trained(MEMBERS["gqa"], recompute)
        counted[recompute] = products.counts
    plain, layers = counted["none"], TINY.num_layers
    assert plain["attention"] == plain["silu"] == layers
    assert counted["selective"] == {**plain, "silu": 2 * layers}
    # Not the last product of a layer: nothing on the way back reads its result, and recomputation ends before it.
    assert counted["full"] == {"mm": plain["mm"] + 3 * layers, "attention": 2 * layers, "silu": 2 * layers}


def kept_bytes(recompute: str, compiled: bool) -> int:
    """Bytes that one forward pass keeps for the way back, each tensor as often as it is kept."""
    decoder = random_decoder(MEMBERS["gqa"])
    decoder.recompute = recompute
    if compiled:
        decoder.compile_layers(backend="aot_eager", fullgraph=True)
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decoder.loss(random_ids(2, 24), random_ids(2, 24, seed=9))
    return kept


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the compiler looks at it
def test_the_more_is_made_again_the_less_is_kept() -> None:
    """Compiled layers keep selective results as saved tensors, where they can be counted; eager ones in torch's own store."""
    full, selective, none = (kept_bytes(recompute, compiled=True) for recompute in ("full", "selective", "none"))
    assert full < 0.7 * selective
    assert selective < 0.9 * none
    assert kept_bytes("full", compiled=False) < 0.25 * kept_bytes("none", compiled=False)


def test_another_name_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no recomputation 'some'; there is none, selective, full"):
        Decoder(TINY, recompute="some")
