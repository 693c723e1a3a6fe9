"""Operators with a fault each, as people have made them, and what a sound proof must say of every one: it fails."""

from collections.abc import Callable

import torch
from torch import Tensor

from modeling.parallel import local, moves, sums
from modeling.parallel.exchange import Boxes, Fetch, Return
from modeling.parallel.operator import Chain, Operator, Wait, done
from modeling.parallel.partition import Box, balanced, tiles
from modeling.parallel.space import Kind
from tests.modeling.parallel.operator_cases import COMPLEX, PARTS, REAL, Case, grid_of, group_of


class Wrong(Operator):
    """An operator whose adjoint is another one's."""

    name = "Wrong"

    def __init__(self, right: Operator, adjoint: Operator) -> None:
        self.right, self.wrong = right, adjoint
        self.domain, self.range = right.domain, right.range

    def launch(self, x: Tensor) -> Wait:
        return self.right.launch(x)

    @property
    def adjoint(self) -> Operator:
        return self.wrong


class Local(local.Local):
    """A function of what a rank holds."""

    name = "Local"

    def __init__(self, function: Callable[[Tensor], Tensor], adjoint: Callable[[], Operator]) -> None:
        self.function, self.back = function, adjoint

    def compute(self, x: Tensor) -> Tensor:
        return self.function(x)

    @property
    def adjoint(self) -> Operator:
        return self.back()


def two_dims(count: int) -> tuple[Chain, tuple[int, int]]:
    """A halo over a grid of 2 x 2, or of 1 x count."""
    rows, columns = (2, 2) if count == 4 else (1, count)
    mesh = grid_of(rows, columns)
    lengths = [balanced(4, rows), balanced(5, columns)]
    groups = [mesh.group("rows"), mesh.group("columns")]
    operator = moves.halo(groups, [0, 1], lengths, [[(1, 1)] * rows, [(1, 1)] * columns])
    assert isinstance(operator, Chain)
    return operator, (lengths[0][groups[0].index], lengths[1][groups[1].index])


def halo_order_not_reversed(count: int) -> Case:
    """The adjoint takes the dims in the order of the forward pass; corners then meet tensors of the wrong extent."""
    operator, shape = two_dims(4)

    class Forwards(Operator):
        name = "Halo*"
        domain, range = operator.range, operator.domain

        def launch(self, x: Tensor) -> Wait:
            # Cut to the shape that each step expects, as an implementation that works in one padded buffer does.
            first, second = operator.operators
            inner = keep_inside(x, 1, second)
            return done(second_adjoint(first, second, x, inner))

        @property
        def adjoint(self) -> Operator:
            return operator

    def keep_inside(x: Tensor, dim: int, step: Operator) -> Tensor:
        assert isinstance(step, Fetch)
        boxes, me = step.boxes, step.boxes.group.index
        inside = boxes.sources[me].inside(boxes.targets[me])[0]
        return x.narrow(dim, inside.start, inside.stop - inside.start)

    def second_adjoint(first: Operator, second: Operator, x: Tensor, inner: Tensor) -> Tensor:
        rows = first.adjoint(inner)  # the columns' ghosts have been left out: their corners never come home
        ghosts = x.clone()
        assert isinstance(second, Fetch)
        at = second.boxes.sources[second.boxes.group.index].inside(second.boxes.targets[second.boxes.group.index])[0]
        ghosts.narrow(1, at.start, at.stop - at.start).zero_()
        return rows + keep_rows(first, second.adjoint(ghosts))

    def keep_rows(first: Operator, x: Tensor) -> Tensor:
        assert isinstance(first, Fetch)
        at = first.boxes.sources[first.boxes.group.index].inside(first.boxes.targets[first.boxes.group.index])[0]
        return x.narrow(0, at.start, at.stop - at.start)

    return Case(Wrong(operator, Forwards()), shape, REAL, (PARTS, PARTS))


def ghosts_not_cleared(count: int) -> Case:
    """What was sent back is still held: it is folded onto the rank's own edge as well."""
    group = group_of(count)
    lengths = balanced(6, count)
    operator = moves.halo_dim(group, 0, lengths, [(1, 1)] * count)
    assert isinstance(operator, Fetch)
    boxes = operator.boxes

    class Kept(Return):
        def launch(self, x: Tensor) -> Wait:
            y = super().launch(x)()
            own, around = boxes.sources[group.index], boxes.targets[group.index]
            if around.start[0] < own.start[0]:
                y = y.clone()
                y[0] += x[0]
            return done(y)

    return Case(Wrong(operator, Kept(boxes)), (lengths[group.index],), REAL, (PARTS, PARTS))


def mean_for_sum(count: int) -> Case:
    group = group_of(count)
    add = sums.SumReduce(group)
    mean = Local(lambda y: y / count, lambda: mean)
    return Case(Wrong(sums.Broadcast(group), Chain([add, mean])), (2, 3), REAL, (Kind.SHARED, Kind.COPIES))


def f_and_g_swapped(count: int) -> Case:
    """The adjoint of the broadcast taken for the identity, and that of the sum for a sum."""
    group = group_of(count)
    return Case(Wrong(sums.Broadcast(group), Local(lambda y: y, lambda: sums.Broadcast(group))), (3,), REAL, (Kind.SHARED, Kind.COPIES))


def summed_twice(count: int) -> Case:
    """The gradient of a sum taken for a sum: every copy has it already."""
    group = group_of(count)
    return Case(Wrong(sums.SumReduce(group), sums.AllSumReduce(group)), (3,), REAL, (Kind.COPIES, Kind.SHARED))


def rfft_adjoint_without_weights(count: int) -> Case:
    right = local.RFFT(0, 6)
    naive = Local(lambda y: torch.fft.irfft(y, n=6, dim=0, norm="forward"), lambda: right)
    return Case(Wrong(right, naive), (6,), REAL, (PARTS, PARTS))


def inverse_without_length(count: int) -> Case:
    """irfft without n gives an even length, whatever went in."""
    wrong = Local(lambda y: torch.fft.irfft(y, dim=0), lambda: local.AdjointInverseRFFT(0, 7))
    return Case(wrong, (4,), COMPLEX, (PARTS, PARTS))


def wrong_start_index(count: int) -> Case:
    """Blocks that start where equal ones would: right only where the length divides."""
    group = group_of(count)
    lengths = balanced(5, count)
    right = moves.all_gather(group, 0, lengths)

    class Equal(Operator):
        name = "Equal"
        domain, range = right.range, right.domain

        def launch(self, x: Tensor) -> Wait:
            total = sums.AllSumReduce(group)(x)
            start = min(group.index * (5 // count), 5 - lengths[group.index])
            return done(total.narrow(0, start, lengths[group.index]))

        @property
        def adjoint(self) -> Operator:
            return right

    return Case(Wrong(right, Equal()), (lengths[group.index],), REAL, (PARTS, Kind.COPIES))


def negative_halo_ignored(count: int) -> Case:
    """The adjoint of a part that leaves its last index out, taken as if it did not."""
    group = group_of(count)
    lengths = balanced(8, count)
    right = moves.halo_dim(group, 0, lengths, [(1, -1)] * count)
    assert isinstance(right, Fetch)
    around = [Box(box.start, (box.size[0],)) for box in right.boxes.targets]
    moved = [Box((box.start[0] + (1 if box.start[0] + box.size[0] < 8 else 0),), box.size) for box in around]
    clamped = Return(Boxes("Halo", group, (0,), tiles([lengths]), moved, few=True))
    return Case(Wrong(right, clamped), (lengths[group.index],), REAL, (PARTS, PARTS))


def gradient_reduced_twice(count: int) -> Case:
    """A layer's operator and the trainer both sum: off by the number of ranks."""
    group = group_of(count)
    twice = Chain([sums.AllSumReduce(group), sums.SumReduce(group)])
    return Case(Wrong(sums.Broadcast(group), twice), (3,), REAL, (Kind.SHARED, Kind.COPIES))


MUTATIONS: dict[str, Callable[[int], Case]] = {
    one.__name__.replace("_", " "): one
    for one in (
        halo_order_not_reversed,
        ghosts_not_cleared,
        mean_for_sum,
        f_and_g_swapped,
        summed_twice,
        rfft_adjoint_without_weights,
        inverse_without_length,
        wrong_start_index,
        negative_halo_ignored,
        gradient_reduced_twice,
    )
}
