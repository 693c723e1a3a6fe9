"""Upsampling over ranks against torch's interpolate, at part borders above all."""

from random import Random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.field import Field
from modeling.parallel.mesh import ALONE, alone
from modeling.parallel.upsample import MODES, Mode, ParallelUpsample, sources
from tests.modeling.parallel.field_cases import RANKS, Part, agree, field_over, random
from tests.ranks import Ranks

WAYS: tuple[tuple[Mode, bool], ...] = (("nearest", False), ("linear", False), ("linear", True))


class Interpolate(nn.Module):
    """torch's."""

    def __init__(self, size: tuple[int, ...], mode: Mode, align_corners: bool) -> None:
        super().__init__()
        self.size, self.mode = size, MODES[mode][len(size) - 1]
        self.align_corners = align_corners if mode == "linear" else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, self.size, mode=self.mode, align_corners=self.align_corners)


def sweep(count: int, dims: int) -> None:
    """Sizes that grow and shrink, by whole factors or not, with fewer points than ranks now and then."""
    for seed in range(12):
        rng = Random(seed)
        size = tuple(rng.randint(1, 9 if dims < 3 else 5) for _ in range(dims))
        to = tuple(length * rng.choice([1, 2, 3]) if rng.random() < 0.6 else rng.randint(1, 14) for length in size)
        field = field_over(count, size, 2 if count == 4 and seed % 4 == 3 else 1)
        for mode, corners in WAYS:
            many = ParallelUpsample(to, field, mode, corners)
            try:
                agree(many, Interpolate(to, mode, corners), random(2, 3, *size), Part(field, ALONE), Part(many.output, ALONE))
            except Exception as error:
                raise AssertionError(f"{mode}, corners {corners}, {size} to {to}: {error}") from error


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("count", RANKS)
def test_random_sizes(ranks: Ranks, count: int, dims: int) -> None:
    ranks(count, sweep, count, dims)


class EachPartAlone(ParallelUpsample):
    """A seam: every rank interpolates its own part."""

    def forward(self, x_BCS: Tensor) -> Tensor:
        return functional.interpolate(x_BCS, self.output.box.size, mode="linear", align_corners=False)


def noticed() -> None:
    field = field_over(2, (8,))
    many = EachPartAlone((16,), field, "linear")
    with pytest.raises(AssertionError, match="output differs"):
        agree(many, Interpolate((16,), "linear", False), random(2, 3, 8), Part(field, ALONE), Part(many.output, ALONE))


def test_a_seam_is_noticed(ranks: Ranks) -> None:
    ranks(2, noticed)


def test_sources_are_torch_s() -> None:
    """Of every pair of lengths, the weights that interpolate gives to a unit vector in each place."""
    for length in range(1, 12):
        for out in range(1, 20):
            for mode, corners in WAYS:
                theirs = Interpolate((out,), mode, corners)(torch.eye(length, dtype=torch.float64)[None])[0]
                low_o, high_o, share_o = sources(length, out, mode, corners)
                ours = torch.zeros(length, out, dtype=torch.float64)
                ours[low_o, range(out)] += 1 - share_o
                ours[high_o, range(out)] += share_o
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_on_one_rank_it_is_torch_s_call() -> None:
    field = Field(alone(), (4, 5), ("", ""))
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(ParallelUpsample((8, 11), field, "linear")(x), Interpolate((8, 11), "linear", False)(x))
    assert torch.equal(ParallelUpsample((8, 11), field)(x), Interpolate((8, 11), "nearest", False)(x))


def test_what_does_not_fit_is_named() -> None:
    field = Field(alone(), (8, 6), ("", ""))
    with pytest.raises(ModelError, match="no upsampling 'cubic'; there is nearest, linear"):
        ParallelUpsample((16, 12), field, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="needs as many sizes"):
        ParallelUpsample((16,), field)
