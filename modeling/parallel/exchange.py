"""The one data movement: every rank gets the box of a partitioned tensor that it asks for; the adjoint adds the boxes back.

Repartition, scatter, gather, halo, shift, broadcast from a root, all-gather and reduce-scatter are this operator with different boxes; see
`modeling.parallel.moves`.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.ledger import Cost, record
from modeling.parallel.mesh import Group
from modeling.parallel.operator import Operator, Wait, done
from modeling.parallel.partition import Box, check_tiling, hull
from modeling.parallel.space import parts
from modeling.parallel.transport import Shape, exchange


class Boxes:
    """Who holds and who wants what, over some dims of a tensor; other dims are whole on every rank.

    `sources` tile the tensor: every index on exactly one rank. `targets` are free: they may overlap, leave indices out, be empty, and lie
    partly outside, where F gives zeros. Index arithmetic alone, the same on every rank.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        dims: Sequence[int],
        sources: Sequence[Box],
        targets: Sequence[Box],
        few: bool,
        checked: bool = False,
    ) -> None:
        if len(sources) != group.size or len(targets) != group.size:
            raise ModelError(f"{name}: {group.size} ranks need as many parts, got {len(sources)} and {len(targets)}")
        if not checked:
            check_tiling(sources)
        self.name, self.group, self.few = name, group, few
        self.dims, self.sources, self.targets = tuple(dims), tuple(sources), tuple(targets)
        self.identity = self.sources == self.targets  # every rank wants what it has

    @cached_property
    def tiling(self) -> bool:
        """Whether the targets hold every index exactly once too, so that F is a permutation."""
        if sum(box.volume for box in self.targets) != sum(box.volume for box in self.sources):
            return False
        try:
            check_tiling(self.targets)
        except ModelError:
            return False
        return hull(self.targets) == hull(self.sources)

    @cached_property
    def given(self) -> list[Box]:
        """What this rank's part gives to every member's box."""
        return [self.sources[self.group.index].meet(target) for target in self.targets]

    @cached_property
    def taken(self) -> list[Box]:
        """What this rank's box takes from every member's part."""
        return [source.meet(self.targets[self.group.index]) for source in self.sources]

    def shape(self, x: Tensor, box: Box) -> Shape:
        """The shape of x where the box is its extent over the dims."""
        shape = list(x.shape)
        for dim, length in zip(self.dims, box.size, strict=True):
            shape[dim] = length
        return tuple(shape)

    def cut(self, x: Tensor, box: Box, held: Box) -> Tensor:
        """The box, as a view of x, which holds the box `held`."""
        for dim, place in zip(self.dims, box.inside(held), strict=True):
            x = x.narrow(dim, place.start, place.stop - place.start)
        return x

    def check(self, x: Tensor, box: Box) -> None:
        """Refuses a tensor that is not this rank's."""
        lowest = max((dim + 1 if dim >= 0 else -dim for dim in self.dims), default=0)
        if x.ndim < lowest or tuple(x.shape[dim] for dim in self.dims) != box.size:
            raise ModelError(
                f"{self.name}: member {self.group.index} of ranks {list(self.group.ranks)} should give {list(box.size)} over dims "
                f"{list(self.dims)}, got the shape {list(x.shape)}"
            )


class Fetch(Operator):
    """y_r = x[targets_r]. A permutation where the targets tile the tensor too; its adjoint is `Return` of the same boxes."""

    def __init__(self, boxes: Boxes) -> None:
        self.boxes, self.name = boxes, boxes.name  # type: ignore[misc]
        self.domain = parts(boxes.group, boxes.dims, boxes.sources)
        self.range = parts(boxes.group, boxes.dims, boxes.targets)
        self.does_nothing = boxes.identity

    @cached_property
    def adjoint(self) -> Operator:
        plan = self.boxes
        # Back by the same way where nothing is to be added: a permutation's adjoint is its inverse, and no bit is changed.
        if plan.tiling:
            back: Operator = Fetch(Boxes(plan.name, plan.group, plan.dims, plan.targets, plan.sources, plan.few, checked=True))
        else:
            back = Return(plan)
        vars(back)["adjoint"] = self  # made once for both ways
        return back

    def launch(self, x: Tensor) -> Wait:
        plan, me = self.boxes, self.boxes.group.index
        if plan.identity:
            return done(x)
        source, target = plan.sources[me], plan.targets[me]
        plan.check(x, source)
        outgoing = [plan.cut(x, box, source) if box.volume else None for box in plan.given]
        incoming = [plan.shape(x, box) if box.volume else None for box in plan.taken]
        covered = sum(box.volume for box in plan.taken) == target.volume
        wait = exchange(self.name, plan.group, outgoing, incoming, x, plan.few) if plan.group.size > 1 else None

        def finish() -> Tensor:
            received: list[Tensor | None] = [None] * plan.group.size if wait is None else wait()
            received[me] = outgoing[me]
            first = received[[box == target for box in plan.taken].index(True)] if target in plan.taken and target.volume else None
            if first is not None:
                return first  # all of it from one rank
            y = (x.new_empty if covered else x.new_zeros)(plan.shape(x, target))
            for box, piece in zip(plan.taken, received, strict=True):
                if piece is not None:
                    plan.cut(y, box, target).copy_(piece)
            return y

        return finish


class Return(Operator):
    """x_s = the sum over ranks r of y_r where the boxes meet: the adjoint of `Fetch`.

    Added in the members' order, in float32 for narrower dtypes, so that equal sums are equal bits wherever they are taken.
    """

    def __init__(self, boxes: Boxes, name: str | None = None) -> None:
        self.boxes, self.name = boxes, name or f"{boxes.name}*"  # type: ignore[misc]
        self.domain = parts(boxes.group, boxes.dims, boxes.targets)
        self.range = parts(boxes.group, boxes.dims, boxes.sources)
        self.does_nothing = boxes.identity

    @cached_property
    def adjoint(self) -> Operator:
        return Fetch(self.boxes)

    def launch(self, x: Tensor) -> Wait:
        plan, me = self.boxes, self.boxes.group.index
        if plan.identity:
            return done(x)
        source, target = plan.sources[me], plan.targets[me]
        plan.check(x, target)
        outgoing = [plan.cut(x, box, target) if box.volume else None for box in plan.taken]
        incoming = [plan.shape(x, box) if box.volume else None for box in plan.given]
        wait = exchange(self.name, plan.group, outgoing, incoming, x, plan.few) if plan.group.size > 1 else None

        def finish() -> Tensor:
            received: list[Tensor | None] = [None] * plan.group.size if wait is None else wait()
            received[me] = outgoing[me]
            record(self.name, Cost(added=sum(piece.numel() for piece in received if piece is not None)))
            total = x.new_zeros(plan.shape(x, source), dtype=sum_dtype(x.dtype))
            for box, piece in zip(plan.given, received, strict=True):
                if piece is not None:
                    plan.cut(total, box, source).add_(piece)
            return total.to(x.dtype)

        return finish


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums of a dtype are taken in."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
