"""Pooling over ranks against torch's, under random windows; the gradient of equal maxima; and padding that must not win."""

from random import Random

import pytest
import torch
from torch import nn

from modeling.errors import ModelError
from modeling.parallel import pooling
from modeling.parallel.field import Field
from modeling.parallel.mesh import ALONE, alone
from modeling.parallel.pooling import ParallelAveragePool, ParallelMaxPool
from modeling.parallel.window import Window
from tests.modeling.parallel.field_cases import RANKS, Part, agree, field_over, random
from tests.ranks import Ranks

MAXIMUM = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def agrees(count: int, dims: int, rng: Random, batch: int = 1) -> None:
    """A window of each kind, drawn; the same input has equal values, so that maxima are tied."""
    kernel = tuple(rng.randint(1, 4) for _ in range(dims))
    dilation = tuple(rng.randint(1, 3) for _ in range(dims))
    stride = rng.choice([None, tuple(rng.randint(1, 4) for _ in range(dims))])
    spans = [Window(k, 1, 0, d).span for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(rng.randint(0, k // 2) for k in kernel)
    size = tuple(max(1, span - 2 * pad) + rng.randint(0, 8 if dims < 3 else 4) for span, pad in zip(spans, padding, strict=True))
    if dims == 3:  # torch's 3-D average takes no field smaller than its window, whatever the padding
        size = tuple(max(one, span) for one, span in zip(size, spans, strict=True))
    field = field_over(count, size, batch)
    x = random(3, 2, *size).mul(2).round()
    many = ParallelMaxPool(kernel, field, stride, padding, dilation)
    agree(many, MAXIMUM[dims](kernel, stride, padding, dilation), x, Part(field, ALONE), Part(many.output, ALONE))
    counted = rng.random() < 0.5
    other = ParallelAveragePool(kernel, field, stride, padding, counted)
    one = AVERAGE[dims](kernel, stride, padding, count_include_pad=counted)
    agree(other, one, random(3, 2, *size), Part(field, ALONE), Part(other.output, ALONE))


def sweep(count: int, dims: int) -> None:
    for seed in range(15):
        try:
            agrees(count, dims, Random(seed), 2 if count == 4 and seed % 5 == 0 else 1)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("count", RANKS)
def test_random_windows(ranks: Ranks, count: int, dims: int) -> None:
    ranks(count, sweep, count, dims)


def padded_with_zeros(layer: ParallelMaxPool) -> None:
    """Zeros win over negative values."""
    layer.border = [0] * len(layer.border)
    layer.over = type(layer.over)(layer.field, layer.over.windows, zeros=True)


def ghosts_ignored(layer: ParallelMaxPool) -> None:
    """Windows end where the part does, the rest being padding."""
    ((left, right),) = layer.over.outside
    layer.border = [1, max(right, 1)]
    layer.over.enter = nn.Identity()  # type: ignore[assignment]
    assert left in (0, 1)


def padding_recounted(layer: ParallelAveragePool) -> None:
    """The padding's zeros count although they should not."""
    layer.recounted = []


FAULTS = {
    "padded with zeros": (ParallelMaxPool, padded_with_zeros),
    "ghosts ignored": (ParallelMaxPool, ghosts_ignored),
    "padding counted": (ParallelAveragePool, padding_recounted),
}


def noticed(name: str) -> None:
    kind, spoil = FAULTS[name]
    field = field_over(2, (8,))
    settings = {"count_padding": False} if kind is ParallelAveragePool else {}
    many = kind(3, field, 1, 1, **settings)
    one = nn.AvgPool1d(3, 1, 1, count_include_pad=False) if settings else nn.MaxPool1d(3, 1, 1)
    spoil(many)
    x = -random(2, 2, 8).abs() - 1
    with pytest.raises(AssertionError, match="differs by"):
        agree(many, one, x, Part(field, ALONE), Part(many.output, ALONE))


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(ranks: Ranks, name: str) -> None:
    ranks(2, noticed, name)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_on_one_rank_it_is_torch_s_call(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    field = Field(alone(), (8,) * dims, ("",) * dims)
    x = torch.randn(2, 3, *[9] * dims)
    for table, layer in ((pooling.MAXIMUM, ParallelMaxPool(3, field, 2, 1)), (pooling.AVERAGE, ParallelAveragePool(3, field, 2, 1, False))):
        seen = []
        monkeypatch.setitem(table, dims, lambda x, *_, seen=seen: seen.append(x))
        layer(x)
        assert seen[0] is x


def test_what_does_not_fit_is_named() -> None:
    field = Field(alone(), (8, 6), ("", ""))
    with pytest.raises(ModelError, match="of 3 taps can be padded by at most 1, got 2"):
        ParallelMaxPool(3, field, padding=2)
    with pytest.raises(ModelError, match="stride must be a whole number or 2"):
        ParallelAveragePool(3, field, stride=(1, 2, 3))
    with pytest.raises(ModelError, match=r"this pooling on this rank takes \(batch, any, any, any\)"):
        ParallelMaxPool(3, field)(torch.zeros(3, 8, 6))
