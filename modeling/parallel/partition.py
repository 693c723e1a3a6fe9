"""Index arithmetic of tensors cut into parts: which rank holds what. No communication and no torch in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from math import prod

from modeling.errors import ModelError


@dataclass(frozen=True)
class Box:
    """A rectangle of indices: start[d] <= i < start[d] + size[d] in every dim d. An empty part has a size of 0."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        return tuple(first + length for first, length in zip(self.start, self.size, strict=True))

    @property
    def volume(self) -> int:
        return prod(self.size)

    def meet(self, other: "Box") -> "Box":
        """The indices in both; empty at this box's start where there are none."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        if any(last <= first for first, last in zip(start, stop, strict=True)):
            return Box(self.start, (0,) * len(self.start))
        return Box(start, tuple(last - first for first, last in zip(start, stop, strict=True)))

    def inside(self, outer: "Box") -> tuple[slice, ...]:
        """Where this box lies in a tensor that holds `outer`."""
        return tuple(
            slice(first - base, first - base + length) for first, base, length in zip(self.start, outer.start, self.size, strict=True)
        )


def balanced(length: int, parts: int) -> tuple[int, ...]:
    """The lengths of `parts` blocks of `length` indices: one more for the first `length % parts`; blocks may be empty."""
    if length < 0 or parts < 1:
        raise ModelError(f"{length} indices cannot be cut into {parts} blocks; at least 0 indices and 1 block are needed")
    shorter, longer = divmod(length, parts)
    return (shorter + 1,) * longer + (shorter,) * (parts - longer)


def starts(lengths: Sequence[int]) -> tuple[int, ...]:
    """Where each of neighbouring blocks begins."""
    return (0, *accumulate(lengths[:-1]))


def tiles(cuts: Sequence[Sequence[int]]) -> tuple[Box, ...]:
    """The boxes that the block lengths `cuts[d]` of each dim make, the last dim counting fastest (row-major)."""
    blocks = [tuple(zip(starts(lengths), lengths, strict=True)) for lengths in cuts]
    return tuple(Box(tuple(start for start, _ in corner), tuple(length for _, length in corner)) for corner in product(*blocks))


def grid_tiles(shape: Sequence[int], grid: Sequence[int]) -> tuple[Box, ...]:
    """The balanced boxes of a Cartesian grid of ranks: `grid[d]` blocks along dim d, the last dim counting fastest."""
    if len(shape) != len(grid):
        raise ModelError(f"a grid of {len(grid)} dims, {tuple(grid)}, cannot cut a tensor of {len(shape)} dims, {tuple(shape)}")
    return tiles([balanced(length, parts) for length, parts in zip(shape, grid, strict=True)])


def whole(shape: Sequence[int]) -> Box:
    """All of a tensor."""
    return Box((0,) * len(shape), tuple(shape))


def nothing(dims: int) -> Box:
    """An empty part of a tensor of so many dims."""
    return Box((0,) * dims, (0,) * dims)


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around the boxes that are not empty."""
    full = [box for box in boxes if box.volume]
    if not full:
        return nothing(len(boxes[0].start))
    start = tuple(min(box.start[d] for box in full) for d in range(len(full[0].start)))
    stop = tuple(max(box.stop[d] for box in full) for d in range(len(full[0].start)))
    return Box(start, tuple(last - first for first, last in zip(start, stop, strict=True)))


def check_tiling(boxes: Sequence[Box]) -> None:
    """Raises where the boxes overlap or leave a gap in the box around them."""
    around = hull(boxes)
    if sum(box.volume for box in boxes) != around.volume:
        raise ModelError(
            f"{len(boxes)} parts hold {sum(box.volume for box in boxes)} indices where {around.volume} have to be held once each"
        )
    full = [box for box in boxes if box.volume]
    # Equal volumes would let an overlap hide a gap elsewhere, so that overlaps are looked for too: among boxes that share indices of the
    # dim in which most of them begin at different places.
    sweep = max(range(len(around.start)), key=lambda dim: len({box.start[dim] for box in full}), default=0)
    ordered = sorted(full, key=lambda box: box.start[sweep])
    for number, box in enumerate(ordered):
        for other in ordered[number + 1 :]:
            if other.start[sweep] >= box.stop[sweep]:
                break
            if box.meet(other).volume:
                raise ModelError(f"the parts {box} and {other} overlap; every index must be held once")
