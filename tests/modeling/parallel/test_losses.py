"""Losses over ranks against torch's on the whole tensors: the same number on every rank, and its gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel import losses
from modeling.parallel.field import Field
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.sums import AllSumReduce, SumReduce
from tests.modeling.parallel.field_cases import RANKS, Part, close, field_over, random
from tests.ranks import Ranks

SIZES = ((7,), (2,), (3, 5), (2, 3, 2))
Loss = Callable[..., Tensor]


def plain_relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean()


ELEMENTWISE: dict[str, tuple[Loss, Loss]] = {
    "mse": (losses.mse, functional.mse_loss),
    "l1": (losses.l1, functional.l1_loss),
    "binary cross-entropy": (losses.binary_cross_entropy, functional.binary_cross_entropy_with_logits),
}


def held_against(many: Callable[[Tensor], Tensor], one: Callable[[Tensor], Tensor], x: Tensor, part: Callable[[Tensor], Tensor]) -> None:
    """A number times 3, so that what arrives from behind is not 1."""
    whole = x.clone().requires_grad_()
    expected = one(whole)
    (3 * expected).backward()
    assert whole.grad is not None
    mine = part(x).clone().requires_grad_()
    loss = many(mine)
    close("loss", loss, expected)
    (3 * loss).backward()
    close("gradient", mine.grad, part(whole.grad), whole.grad)


def elementwise(name: str, field: Field, channels: Group, group: Group) -> None:
    ours, theirs = ELEMENTWISE[name]
    x, target = random(4, 3, *field.size), random(4, 3, *field.size, seed=1).sigmoid()
    part = Part(field, channels)
    held_against(lambda mine: ours(mine, part(target), group), lambda full: theirs(full, target), x, part)


def classes(field: Field) -> None:
    x = random(4, 3, *field.size)
    target = torch.randint(0, 3, (4, *field.size), generator=torch.Generator().manual_seed(0))
    target[random(4, *field.size, seed=2) > 1] = -100
    part = Part(field, ALONE)
    mine = part(target[:, None])[:, 0]
    held_against(lambda y: losses.cross_entropy(y, mine, field.group), lambda y: functional.cross_entropy(y, target), x, part)


def relative(field: Field, channels: Group) -> None:
    x, target = random(4, 3, *field.size), random(4, 3, *field.size, seed=1)
    part, batch = Part(field, channels), field.mesh.group("batch")
    rest = field.mesh.group(*field.axes, "out")
    held_against(lambda y: losses.relative_l2(y, part(target), rest, batch), lambda y: plain_relative_l2(y, target), x, part)


def all_losses(count: int) -> None:
    for size in SIZES:
        for split in ({}, {"out": 2}, {"batch": 2}) if count == 4 else ({}, {"batch": count}):
            field = field_over(count, size, split.get("batch", 1), out=split.get("out", 1))
            channels = field.mesh.group("out")
            everywhere = field.mesh.group("batch", *field.axes, "out")
            for name in ELEMENTWISE:
                elementwise(name, field, channels, everywhere)
            relative(field, channels)
            if channels.size == 1:
                classes(field)


@pytest.mark.parametrize("count", RANKS)
def test_every_loss(ranks: Ranks, count: int) -> None:
    ranks(count, all_losses, count)


class MeanOfMeans(SumReduce):
    """Every rank's mean counts alike, however many elements it has."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x / x[1])


FAULTS: dict[str, tuple[type, str]] = {
    "counted on every rank": (AllSumReduce, "gradient differs"),
    "mean of means": (MeanOfMeans, "loss differs"),
}


def noticed(name: str) -> None:
    kind, said = FAULTS[name]
    right, losses.SumReduce = losses.SumReduce, kind  # type: ignore[misc]
    field = field_over(2, (5,))
    try:
        with pytest.raises(AssertionError, match=said):
            elementwise("mse", field, ALONE, field.group)
    finally:
        losses.SumReduce = right  # type: ignore[misc]


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(ranks: Ranks, name: str) -> None:
    ranks(2, noticed, name)


def test_a_perfect_prediction_has_a_gradient() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    losses.relative_l2(x, torch.ones(2, 3)).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(2, 3))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"mse: prediction and target must have one shape, got \[2, 1\] and \[2\]"):
        losses.mse(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(ModelError, match="do not fit targets"):
        losses.cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.long))
