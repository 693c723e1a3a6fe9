"""The spaces between which operators map, with the one convention for replicas carried in the type.

A space is what the ranks of a group hold together. Where each rank's part has coordinates of its own, the space is the direct sum of the
parts, <x, y> = sum over ranks of Re <x_r, y_r>: pieces of one tensor (`Kind.PARTS`), or one whole tensor of its own per rank, such as the
partial sums of a product (`Kind.COPIES`). Where every rank holds the same tensor, and it counts once, the space is that of one rank
(`Kind.SHARED`). Equal copies that are counted once each are COPIES, not SHARED: between the two lie Broadcast and SumReduce, and an
operator that is joined to the wrong kind is refused, since the gradient would be off by the number of ranks.
"""

from dataclasses import dataclass
from enum import Enum

from modeling.errors import ModelError
from modeling.parallel.mesh import Group
from modeling.parallel.partition import Box


class Kind(Enum):
    """How the ranks' tensors count."""

    SHARED = "shared"
    COPIES = "copies"
    PARTS = "parts"


@dataclass(frozen=True)
class Space:
    """What the ranks of `group` hold of one tensor. `boxes` are the indices of each rank over `dims`, where the operator fixes them."""

    group: Group
    kind: Kind
    dims: tuple[int, ...] = ()
    boxes: tuple[Box, ...] | None = None

    @property
    def of_any_size(self) -> "Space":
        """The same without its boxes."""
        return Space(self.group, self.kind)

    def __str__(self) -> str:
        sizes = "" if self.boxes is None else f" of {[box.size for box in self.boxes]} over dims {list(self.dims)}"
        return f"{self.kind.value}{sizes} on ranks {list(self.group.ranks)}"


def shared(group: Group) -> Space:
    return Space(group, Kind.SHARED)


def copies(group: Group) -> Space:
    return Space(group, Kind.COPIES)


def parts(group: Group, dims: tuple[int, ...], boxes: tuple[Box, ...]) -> Space:
    """Parts of a tensor; copies, where every rank's box is the same one."""
    same = all(box == boxes[0] for box in boxes) and bool(boxes[0].volume)
    return Space(group, Kind.COPIES if same and len(boxes) > 1 else Kind.PARTS, dims, boxes)


def check_joined(first: Space, then: Space) -> None:
    """Refuses to feed what lies in `first` to an operator on `then`, which have more than one rank in common or are the same one.

    On one rank all kinds are one space.
    """
    if set(first.group.ranks) != set(then.group.ranks):
        raise ModelError(f"operators on ranks that overlap but are not the same cannot be joined: {first} into {then}")
    if first.group.size > 1 and first.kind is not then.kind:
        raise ModelError(
            f"{first.kind.value} cannot enter an operator on {then.kind.value}: the gradient would count copies wrongly. "
            "Broadcast leads from shared to copies, SumReduce back"
        )
    if first.dims == then.dims and first.boxes is not None and then.boxes is not None and first.boxes != then.boxes:
        raise ModelError(f"the parts do not agree: {first} into {then}")
