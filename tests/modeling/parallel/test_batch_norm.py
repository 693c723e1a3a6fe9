"""Batch norm over ranks against torch's: outputs, gradients, and running statistics that are the same bits on every rank."""

import pytest
import torch
from torch import Tensor, nn

from modeling.errors import ModelError
from modeling.parallel.batch_norm import ParallelBatchNorm
from modeling.parallel.field import Field
from modeling.parallel.mesh import ALONE, alone
from modeling.parallel.sums import AllSumReduce, Broadcast, SumReduce
from tests.modeling.parallel.field_cases import RANKS, Part, agree, block, close, field_over, random
from tests.modeling.parallel.proofs import everyone
from tests.ranks import Ranks

TORCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZES = {1: (5,), 2: (3, 5), 3: (2, 3, 3)}


def agrees(count: int, dims: int, split: dict[str, int], momentum: float | None, affine: bool, size: tuple[int, ...] = ()) -> None:
    """Three batches, then one in evaluation."""
    size, channels = size or SIZES[dims], 3
    field = field_over(count, size, split.get("batch", 1), out=split.get("out", 1))
    group = field.mesh.group("out")
    many = ParallelBatchNorm(channels, field, momentum=momentum, affine=affine, channels=group, dtype=torch.float64)
    one = TORCH[dims](channels, momentum=momentum, affine=affine, dtype=torch.float64)
    for step in range(4):
        if step == 3:
            many.eval()
            one.eval()
        for layer in (many, one):
            layer.zero_grad()
        agree(many, one, 3 + random(5, channels, *size, seed=20 + step), Part(field, group), Part(field, group))
        for name in ("running_mean", "running_var"):
            expected = getattr(one, name)
            close(name, getattr(many, name), block(expected, 0, group), expected)
            assert all(torch.equal(each, getattr(many, name)) for each in everyone(field.group, getattr(many, name)))
        assert many.num_batches_tracked == one.num_batches_tracked


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("count", RANKS)
def test_parts_of_the_field(ranks: Ranks, count: int, dims: int) -> None:
    ranks(count, agrees, count, dims, {}, 0.1, True)


def test_other_settings(ranks: Ranks) -> None:
    ranks(4, agrees, 4, 2, {"batch": 2}, 0.3, True)
    ranks(4, agrees, 4, 2, {"out": 2}, None, True)
    ranks(4, agrees, 4, 1, {"out": 4}, 0.1, True)
    ranks(3, agrees, 3, 1, {"batch": 3}, 0.1, False)


def test_fewer_points_than_ranks(ranks: Ranks) -> None:
    for count in (3, 4):
        ranks(count, agrees, count, 1, {}, 0.1, True, (2,))


def test_a_large_mean_costs_no_digits(ranks: Ranks) -> None:
    """Sums of squares would lose eight of them here. The inputs themselves are rounded to 1e-12 of their spread."""
    ranks(2, large_mean)


def large_mean() -> None:
    field = field_over(2, (6,))
    layer = ParallelBatchNorm(2, field, dtype=torch.float64)
    x = 1e4 + random(4, 2, 6)
    y = layer(field.cut(x))
    close("output", y, field.cut(nn.BatchNorm1d(2, dtype=torch.float64)(x)), bound=1e-11)


def without_statistics(count: int) -> None:
    field = field_over(count, (5,))
    many = ParallelBatchNorm(3, field, track_running_stats=False, dtype=torch.float64)
    one = nn.BatchNorm1d(3, track_running_stats=False, dtype=torch.float64)
    for layer in (many, one):
        layer.eval()
    agree(many, one, random(4, 3, 5), Part(field, ALONE), Part(field, ALONE))


def test_without_running_statistics(ranks: Ranks) -> None:
    for count in (1, 2, 3):
        ranks(count, without_statistics, count)


class OwnSums(AllSumReduce):
    """Every rank normalises by its own points."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


def own_statistics(layer: ParallelBatchNorm) -> None:
    layer.add = OwnSums(layer.field.group)


def shared_statistics(layer: ParallelBatchNorm) -> None:
    """The adjoint is a Broadcast, as if the statistics were used once: each rank forgets what it does to the others' points."""
    layer.add = SumReduce(layer.field.group)  # type: ignore[assignment]


def weights_not_spread(layer: ParallelBatchNorm) -> None:
    layer.spread = Broadcast(ALONE)


FAULTS = {
    "own statistics": (own_statistics, "output differs"),
    "shared statistics": (shared_statistics, "input gradient differs"),
    "weights not spread": (weights_not_spread, "gradient of weight differs"),
}


def noticed(name: str) -> None:
    spoil, said = FAULTS[name]
    field = field_over(2, (5,))
    many = ParallelBatchNorm(3, field, dtype=torch.float64)
    spoil(many)
    with pytest.raises(AssertionError, match=said):
        agree(many, nn.BatchNorm1d(3, dtype=torch.float64), random(4, 3, 5), Part(field, ALONE), Part(field, ALONE))


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(ranks: Ranks, name: str) -> None:
    ranks(2, noticed, name)


def test_on_one_rank_it_is_torch_s_layer() -> None:
    field = Field(alone(), (4, 5), ("", ""))
    ours, theirs = ParallelBatchNorm(3, field), nn.BatchNorm2d(3)
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(one, theirs.state_dict()[name]) for name, one in ours.state_dict().items())


def test_what_does_not_fit_is_named() -> None:
    field = Field(alone(), (1,), ("",))
    with pytest.raises(ModelError, match="more than 1 value per channel"):
        ParallelBatchNorm(3, field)(torch.zeros(1, 3, 1))
    with pytest.raises(ModelError, match=r"takes \(batch, 3, any\), got the shape \[2, 4, 1\]"):
        ParallelBatchNorm(3, field)(torch.zeros(2, 4, 1))
