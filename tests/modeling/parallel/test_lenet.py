"""LeNet-5 on four ranks, after DistDL's example: the gradients of one batch, and a training run, are those of one rank."""

import pytest
import torch

from modeling.parallel.mesh import ALONE
from modeling.parallel.sums import Broadcast
from modeling.parallel.weights import fill
from tests.modeling.parallel.field_cases import agree, mesh_of
from tests.modeling.parallel.lenet import LeNet, ParallelLeNet, digits, on_root, train
from tests.ranks import Ranks

AXES = (("rows", 2), ("columns", 2))


def one_batch(spoilt: bool) -> None:
    mesh = mesh_of(AXES)
    many = ParallelLeNet(mesh)
    if spoilt:
        many.conv1.spread = Broadcast(ALONE)
    images_B1HW, _ = digits()
    agree(many, LeNet().double(), images_B1HW[:8], lambda x: on_root(x, mesh.rank == 0), lambda y: y)


def test_gradients_of_one_batch(ranks: Ranks) -> None:
    ranks(4, one_batch, False)


def noticed() -> None:
    with pytest.raises(AssertionError, match="gradient of conv1"):
        one_batch(True)


def test_a_gradient_that_is_not_summed_is_noticed(ranks: Ranks) -> None:
    ranks(4, noticed)


def trained(steps: int) -> tuple[list[float], float]:
    torch.manual_seed(0)
    one = LeNet().double()
    mesh = mesh_of(AXES)
    many = ParallelLeNet(mesh)
    fill(many, ((name, parameter.detach()) for name, parameter in one.named_parameters()))
    return train(many, steps, mesh.rank == 0)


@pytest.mark.slow
def test_it_trains_to_the_accuracy_of_one_rank(ranks: Ranks) -> None:
    """200 steps; losses of the first 50 agree to 1e-10. Later ones may part, since training magnifies differences of rounding."""
    steps = 200
    torch.manual_seed(0)
    losses, accuracy = train(LeNet().double(), steps, True)
    results = ranks(4, trained, steps)
    for ours, read in results:
        worst = max(abs(a - b) for a, b in zip(ours[:50], losses[:50], strict=True))
        assert worst <= 1e-10, f"losses of the first 50 steps differ by {worst}"
        # The shared loss is the same bits on every rank.
        assert ours == results[0][0]
        # Two of 360 digits.
        assert abs(read - accuracy) <= 2 / 360, f"{read} of the digits on four ranks, {accuracy} on one"
    assert accuracy > 0.95
    assert losses[-1] < 0.7 * losses[0]
