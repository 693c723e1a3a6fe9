"""Float8 layers: what is refused, and where torchao is installed, numbers close to the wide ones and the same names."""

import dataclasses
import importlib.util

import pytest
import torch
from small_decoders import random_decoder, random_ids

from modeling import float8
from modeling.errors import ModelError
from modeling.float8 import RECIPES, check_device, use_float8
from modeling.presets import TINY

ROUND = dataclasses.replace(TINY, hidden_size=64, intermediate_size=96, window_keys=None)
installed = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="not run here: torchao is not installed")
# torchao's own modules warn of torch's newer ways when they are imported.
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def gradients(recipe: str | None) -> tuple[list[str], list[torch.Tensor]]:
    """The linear maps' gradients of one pass; None: without float8."""
    decoder = random_decoder(ROUND)
    if recipe is not None:
        use_float8(decoder, recipe, emulate=True)
    decoder.loss(random_ids(2, 32), random_ids(2, 32, seed=9)).backward()
    named = list(decoder.named_parameters())
    return [name for name, _ in named], [one.grad for _, one in named if one.grad is not None and one.ndim == 2]


@installed
@quiet
@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_are_near_the_wide_ones(recipe: str) -> None:
    names, wide = gradients(None)
    same_names, rounded = gradients(recipe)
    assert names == same_names
    for mine, theirs in zip(rounded, wide, strict=True):
        assert 1e-4 * theirs.norm() < (mine - theirs).norm() < 0.25 * theirs.norm()  # rounded for certain, to 3 or 2 bits


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no float8 recipe 'blockwise'; there is tensorwise, rowwise"):
        use_float8(random_decoder(ROUND), "blockwise")
    odd = dataclasses.replace(ROUND, intermediate_size=100)
    with pytest.raises(ModelError, match=r"multiples of 16; layers\.0\.feed_forward\.gate_up maps 64 to 200 features"):
        use_float8(random_decoder(odd))
    with pytest.raises(ModelError, match=r"capability 8\.9 or more; the decoder is on cpu"):
        check_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(ModelError, match=r"capability 8\.9 or more; cuda:0 has 8\.0"):
        check_device(torch.device("cuda", 0))
    monkeypatch.setattr(float8.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r'torchao, which is not installed: pip install -e "\.\[float8\]"'):
        use_float8(random_decoder(ROUND))


@pytest.mark.gpu
@installed
@quiet
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: float8 products need a CUDA device")
def test_the_gpus_products_are_near_the_emulated_ones() -> None:
    ids_BT, targets_BT = random_ids(2, 32).cuda(), random_ids(2, 32, seed=9).cuda()
    losses = []
    for emulate in (True, False):
        decoder = use_float8(random_decoder(ROUND, dtype=torch.bfloat16).cuda(), emulate=emulate)
        losses.append(decoder.loss(ids_BT, targets_BT).item())
    assert abs(losses[0] - losses[1]) < 0.02 * losses[0]
