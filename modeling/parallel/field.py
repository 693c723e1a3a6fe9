"""How a field, values on a regular grid of points, lies over ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.operator import Operator
from modeling.parallel.partition import Box, balanced
from modeling.parallel.sums import Broadcast
from modeling.parallel.window import blocks


@dataclass(frozen=True)
class Field:
    """A tensor (batch, channels, *size): spatial dim d is cut into blocks along the mesh axis `axes[d]`.

    size     of the whole field; on one rank layers take fields of any size
    axes     the mesh axis of each spatial dim; one that the mesh does not have ("" say) leaves the dim whole
    batch    the mesh axis along which ranks hold other samples, where they count together: weights, statistics and losses then sum over it
             by themselves, so that `sum_gradients` must leave this axis out
    lengths  of each dim, the blocks' lengths, where they are not balanced

    Channels are the layers' affair: they may be parts along further mesh axes.
    """

    mesh: Mesh
    size: tuple[int, ...]
    axes: tuple[str, ...]
    batch: str = ""
    lengths: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name in (self.batch, *self.axes) if name in self.mesh.axes]
        if len(self.axes) != len(self.size) or not 1 <= len(self.size) <= 3:
            raise ModelError(
                f"a field of 1 to 3 spatial dims needs a mesh axis for each, got the size {self.size} and the axes {self.axes}"
            )
        if len(set(names)) < len(names):
            raise ModelError(f"every dim of a field needs a mesh axis of its own, got {names}")
        if min(self.size) < 1:
            raise ModelError(f"a field needs at least 1 point along every dim, got the size {self.size}")
        if not self.lengths:
            cuts = tuple(balanced(length, group.size) for length, group in zip(self.size, self.groups, strict=True))
            object.__setattr__(self, "lengths", cuts)
        counts = [group.size for group in self.groups]
        if [len(cut) for cut in self.lengths] != counts or tuple(sum(cut) for cut in self.lengths) != self.size:
            raise ModelError(f"blocks of the lengths {self.lengths} do not cut the size {self.size} over {counts} ranks")

    @property
    def dims(self) -> int:
        """Spatial ones."""
        return len(self.size)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The ranks along each spatial dim."""
        return tuple(self.mesh.group(name) for name in self.axes)

    @cached_property
    def group(self) -> Group:
        """The ranks that hold the other points, and samples where `batch` says so."""
        return self.mesh.group(self.batch, *self.axes)

    @property
    def spread(self) -> Operator:
        """What a weight passes through before it meets the field: its uses on parts are copies, whose gradients add up."""
        return Broadcast(self.group)

    @cached_property
    def box(self) -> Box:
        """This rank's points."""
        mine = [blocks(cut)[group.index] for cut, group in zip(self.lengths, self.groups, strict=True)]
        return Box(tuple(one.start for one in mine), tuple(len(one) for one in mine))

    @cached_property
    def alone(self) -> bool:
        """Whether this rank has all points of all samples."""
        return self.group.size == 1

    @cached_property
    def local_size(self) -> tuple[int | None, ...]:
        """This rank's length of every spatial dim; None where the dim is whole, and any length will do."""
        return tuple(size if group.size > 1 else None for size, group in zip(self.box.size, self.groups, strict=True))

    def cut(self, full: Tensor) -> Tensor:
        """This rank's points of a tensor that has all of them, (..., *size), as a view."""
        for dim, (first, length) in enumerate(zip(self.box.start, self.box.size, strict=True)):
            full = full.narrow(dim - self.dims, first, length)
        return full

    def resized(self, size: Sequence[int]) -> "Field":
        """Another size on the same ranks, in balanced blocks."""
        return Field(self.mesh, tuple(size), self.axes, self.batch)


def check_apart(field: Field, *groups: Group) -> None:
    """Refuses groups of channels that share a mesh axis with the field or with each other: parts and sums would then mix up two dims."""
    taken: set[int] = set()
    for group in (field.group, *groups):
        others = set(group.ranks) - {field.mesh.rank} if group.size > 1 else set()
        if taken & others:
            raise ModelError(f"ranks {list(group.ranks)} are asked to split channels and already split another dim; take another mesh axis")
        taken |= others
