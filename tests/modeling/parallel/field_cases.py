"""A layer over ranks against torch's layer on the whole tensors: outputs, and the gradients of inputs and parameters, float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from modeling.parallel.field import Field
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.partition import balanced, starts
from modeling.parallel.pieces import parameter_pieces
from modeling.parallel.weights import fill

RANKS = (1, 2, 3, 4)
BOUND = 1e-11
# Ranks along each spatial dim, by the number of dims and of ranks.
GRIDS: dict[int, dict[int, Sequence[int]]] = {
    1: {1: (1,), 2: (2,), 3: (3,), 4: (4,)},
    2: {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)},
    3: {1: (1, 1, 1), 2: (1, 2, 1), 3: (1, 1, 3), 4: (2, 1, 2)},
}
AXES = ("depth", "height", "width")


@cache
def mesh_of(axes: tuple[tuple[str, int], ...]) -> Mesh:
    """Made once, as a model would, by all ranks in the same order."""
    return Mesh(dict(axes))


def field_over(count: int, size: tuple[int, ...], batch: int = 1, **channels: int) -> Field:
    """A field of that size; of the ranks, `batch` and `channels` split other dims, and the rest the points."""
    spatial = count // batch
    for length in channels.values():
        spatial //= length
    grid = GRIDS[len(size)][spatial]
    mesh = mesh_of((("batch", batch), *channels.items(), *zip(AXES, grid, strict=False)))
    return Field(mesh, size, AXES[: len(size)], batch="batch")


def random(*shape: int, seed: int = 0) -> Tensor:
    """The same on every rank."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def block(full: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's balanced block along a dim."""
    lengths = balanced(full.shape[dim], group.size)
    return full.narrow(dim, starts(lengths)[group.index], lengths[group.index])


@dataclass(frozen=True)
class Part:
    """Which part of a whole (batch, channels, *points) a rank holds."""

    field: Field
    channels: Group

    def __call__(self, full: Tensor) -> Tensor:
        return self.field.cut(block(block(full, 0, self.field.mesh.group(self.field.batch)), 1, self.channels))


def close(name: str, ours: Tensor | None, theirs: Tensor, whole: Tensor | None = None, bound: float = BOUND) -> None:
    """Relative in norm, to that of the whole tensor."""
    assert ours is not None, f"{name}: nothing came"
    assert ours.shape == theirs.shape, f"{name}: the shape is {tuple(ours.shape)}, should be {tuple(theirs.shape)}"
    error = (ours - theirs).norm() / (theirs if whole is None else whole).norm().clamp(min=1e-30)
    assert error <= bound, f"{name} differs by {error:.3g} of its norm"


def agree(
    many: nn.Module,
    one: nn.Module,
    x: Tensor,
    enters: Callable[[Tensor], Tensor],
    leaves: Callable[[Tensor], Tensor],
) -> None:
    """`many` over ranks gives this rank's part of what `one` gives, there and back under a random incoming gradient.

    `enters` and `leaves` cut this rank's part of a whole input and output. Both get the same random weights.
    """
    with torch.no_grad():
        for number, parameter in enumerate(one.parameters()):
            parameter.copy_(random(*parameter.shape, seed=10 + number))
    fill(many, ((name, parameter.detach()) for name, parameter in one.named_parameters()))
    whole_x = x.clone().requires_grad_()
    whole_y = one(whole_x)
    dy = random(*whole_y.shape, seed=1)
    whole_y.backward(dy)
    assert whole_x.grad is not None
    mine = enters(x).clone().requires_grad_()
    kept = mine.detach().clone()
    y = many(mine)
    close("output", y, leaves(whole_y), whole_y)
    y.backward(leaves(dy).clone())
    assert torch.equal(mine.detach(), kept), "the input was changed"
    close("input gradient", mine.grad, enters(whole_x.grad), whole_x.grad)
    pieces, expected = parameter_pieces(many), dict(one.named_parameters())
    for name, parameter in many.named_parameters():
        grad = expected[name].grad
        assert grad is not None
        close(f"gradient of {name}", parameter.grad, pieces[name].take(grad), grad)
