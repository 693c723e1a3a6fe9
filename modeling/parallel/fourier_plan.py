"""Over which ranks a field and its kept Fourier modes lie: slabs and pencils, and the bytes that each way sends. Index arithmetic alone.

A field of N dims lies on a grid of ranks that leaves some dims whole, the last one always. Those are transformed first and cut down to
their kept modes at once; then one transpose (a Repartition) makes other dims whole, and so on until all are transformed. Truncating before
every transpose is what keeps the bytes few: what is moved has been cut down along every dim that was whole before.

A layout with the field cut along one dim is a slab, along more a pencil.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from math import prod

from modeling.errors import ModelError
from modeling.parallel.partition import Box, balanced, grid_tiles, starts

Grid = tuple[int, ...]


def kept_modes(modes: Sequence[int]) -> tuple[int, ...]:
    """How many coefficients are kept of each dim: `modes`, but of the last dim, where the field is real, the half without mirror images."""
    if not modes or min(modes) < 1:
        raise ModelError(f"modes={tuple(modes)}: one number of at least 1 per dim of the field is needed")
    return (*modes[:-1], modes[-1] // 2 + 1)


@dataclass(frozen=True)
class FourierPlan:
    """`grids[s]` is the grid of ranks in stage s: the field's in stage 0, the kept modes' in the last one; between two stages all is moved.

    sizes   the field's points along each dim
    modes   modes per dim as neuraloperator counts them; see `kept_modes`
    """

    sizes: tuple[int, ...]
    modes: tuple[int, ...]
    grids: tuple[Grid, ...]

    def __post_init__(self) -> None:
        check_sizes(self.sizes, self.modes)
        for grid in self.grids:
            if len(grid) != len(self.sizes) or prod(grid) != self.ranks:
                raise ModelError(f"the grids {self.grids} do not each cut {len(self.sizes)} dims over the same number of ranks")
        if sum(len(dims) for dims in self.turned) != len(self.sizes) or not self.turned or len(self.sizes) - 1 not in self.turned[0]:
            raise ModelError(f"the grids {self.grids} must leave the last dim whole at first, and every dim at some time")
        if any(parts > length for parts, length in zip(self.grids[-1], self.kept, strict=True)):
            raise ModelError(f"the grid {self.grids[-1]} is finer than the kept modes {self.kept}; a rank would have none")

    @property
    def ranks(self) -> int:
        return prod(self.grids[0])

    @property
    def kept(self) -> tuple[int, ...]:
        return kept_modes(self.modes)

    @cached_property
    def turned(self) -> tuple[tuple[int, ...], ...]:
        """Which dims are transformed in each stage, in the order in which it is done: the last ones first."""
        left, found = list(reversed(range(len(self.sizes)))), []
        for grid in self.grids:
            found.append(tuple(dim for dim in left if grid[dim] == 1))
            left = [dim for dim in left if grid[dim] > 1]
        return tuple(found)

    def lengths(self, stage: int) -> tuple[int, ...]:
        """Each dim's length once the stage's transforms are done."""
        done = {dim for dims in self.turned[: stage + 1] for dim in dims}
        return tuple(self.kept[dim] if dim in done else size for dim, size in enumerate(self.sizes))

    @property
    def field_boxes(self) -> tuple[Box, ...]:
        """Each rank's part of the field."""
        return grid_tiles(self.sizes, self.grids[0])

    @property
    def mode_boxes(self) -> tuple[Box, ...]:
        """Each rank's part of the kept modes."""
        return grid_tiles(self.kept, self.grids[-1])

    @cached_property
    def moved(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per transpose and rank, how many coefficients of one channel and sample the rank sends to others: (there, back)."""
        return tuple(moved_between(self.lengths(stage), self.grids[stage], self.grids[stage + 1]) for stage in range(len(self.grids) - 1))

    def bytes_sent(self, rank: int, batch: int = 1, in_channels: int = 1, out_channels: int = 1, itemsize: int = 8) -> int:
        """What a rank sends in the transposes of one spectral convolution; the way back sends the same with the channels swapped.

        `itemsize` is that of a complex number: 8 for float32 fields.
        """
        there, back = (sum(one[rank][way] for one in self.moved) for way in (0, 1))
        return batch * itemsize * (there * in_channels + back * out_channels)

    @property
    def most_bytes(self) -> int:
        """`bytes_sent` of the rank that sends most."""
        return max(self.bytes_sent(rank) for rank in range(self.ranks))

    @property
    def idle(self) -> int:
        """How many ranks hold no part of the field."""
        return self.ranks - prod(min(parts, size) for parts, size in zip(self.grids[0], self.sizes, strict=True))

    def untruncated(self) -> "FourierPlan":
        """The same grids with all modes kept: what transposes move that truncate afterwards."""
        return replace(self, modes=self.sizes)

    def __str__(self) -> str:
        if self.ranks == 1:
            return f"1 rank: the field {shown(self.sizes)} and its {shown(self.kept)} modes on one rank; nothing is sent"
        kind = "slabs" if sum(parts > 1 for parts in self.grids[0]) == 1 else "pencils"
        times = self.untruncated().most_bytes / max(self.most_bytes, 1)
        return (
            f"{self.ranks} ranks, {kind}: the field {shown(self.sizes)} on the grid {shown(self.grids[0])}, then its {shown(self.kept)} "
            f"modes on {', '.join(shown(grid) for grid in self.grids[1:])}; at most {self.most_bytes:,} bytes sent per rank, channel and "
            f"sample (complex64), {times:.1f} times fewer than untruncated"
        )


def shown(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))


def check_sizes(sizes: Sequence[int], modes: Sequence[int]) -> None:
    """Refuses fields that do not have the modes."""
    kept_modes(modes)
    if len(sizes) != len(modes):
        raise ModelError(f"a field of {len(sizes)} dims, {shown(sizes)}, does not fit modes={tuple(modes)}")
    for dim, (size, count) in enumerate(zip(sizes, modes, strict=True)):
        if count // 2 > size // 2 if dim == len(sizes) - 1 else count > size:
            raise ModelError(f"dim {dim} of the field {shown(sizes)} has {size} points; {count} modes are kept and need as many")


def moved_between(lengths: tuple[int, ...], before: Grid, after: Grid) -> tuple[tuple[int, int], ...]:
    """Of each rank, the indices it holds on the one grid and not on the other, and the other way round."""
    line_before, line_after = blocks(lengths, before), blocks(lengths, after)
    found = []
    for rank in range(prod(before)):
        held = taken = both = 1
        for dim, (a, b) in enumerate(zip(places(rank, before), places(rank, after), strict=True)):
            (first, length), (then, other) = line_before[dim][a], line_after[dim][b]
            held, taken = held * length, taken * other
            both *= max(0, min(first + length, then + other) - max(first, then))
        found.append((held - both, taken - both))
    return tuple(found)


def blocks(lengths: Sequence[int], grid: Grid) -> list[list[tuple[int, int]]]:
    """Per dim, each block's start and length."""
    cuts = [balanced(length, parts) for length, parts in zip(lengths, grid, strict=True)]
    return [list(zip(starts(cut), cut, strict=True)) for cut in cuts]


@cache
def places(rank: int, grid: Grid) -> tuple[int, ...]:
    """A rank's place in the grid, the last dim counting fastest."""
    found = []
    for parts in reversed(grid):
        rank, place = divmod(rank, parts)
        found.append(place)
    return tuple(reversed(found))


def plan_fourier(sizes: Sequence[int], modes: Sequence[int], ranks: int) -> FourierPlan:
    """The layout in which the rank that sends most sends the fewest bytes, among those that leave the fewest ranks without field.

    Raises ModelError where no layout gives every rank a kept mode.
    """
    sizes, modes = tuple(sizes), tuple(modes)
    check_sizes(sizes, modes)
    plans = [FourierPlan(sizes, modes, grids) for grids in layouts(sizes, kept_modes(modes), ranks)]
    if not plans:
        raise ModelError(
            f"{ranks} ranks cannot share the {shown(kept_modes(modes))} kept modes of a field {shown(sizes)}: every rank needs one; "
            f"the most is {most_ranks(sizes, modes)}"
        )
    return min(plans, key=lambda plan: (plan.idle, plan.most_bytes, sum(map(sum_there, plan.moved)), len(plan.grids), plan.grids))


def sum_there(moved: tuple[tuple[int, int], ...]) -> int:
    return sum(there for there, _ in moved)


def most_ranks(sizes: tuple[int, ...], modes: tuple[int, ...]) -> int:
    """The largest number of ranks that some layout allows."""
    return next(ranks for ranks in range(prod(kept_modes(modes)), 0, -1) if next(layouts(sizes, kept_modes(modes), ranks), None))


def layouts(sizes: tuple[int, ...], kept: tuple[int, ...], ranks: int) -> Iterator[tuple[Grid, ...]]:
    """Every sequence of grids: the cut dims made whole at once, or one after another.

    Modes are never cut finer than there are; a field may be, where it has fewer points than ranks along a dim.
    """
    if ranks == 1:
        yield ((1,) * len(sizes),)
        return
    for count in range(1, len(sizes)):
        for cut in combinations(range(len(sizes) - 1), count):
            for parts in factorisations(ranks, count):
                if min(parts) > 1:
                    first = tuple(parts[cut.index(dim)] if dim in cut else 1 for dim in range(len(sizes)))
                    yield from ((first, *rest) for rest in followers(first, kept, sizes))


def followers(grid: Grid, kept: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[Grid, ...]]:
    """The grids that may come after a field's: all cut dims moved onto whole ones at once, or one dim at a time, the last one first."""
    cut = [dim for dim in range(len(grid)) if grid[dim] > 1]
    free = [dim for dim in range(len(grid)) if grid[dim] == 1]
    for parts in factorisations(prod(grid), len(free)):
        if all(part <= kept[dim] for part, dim in zip(parts, free, strict=True)):
            yield (tuple(parts[free.index(dim)] if dim in free else 1 for dim in range(len(grid))),)
    if len(cut) > 1:
        yield from one_by_one(grid, cut, kept, sizes)


def one_by_one(grid: Grid, cut: list[int], kept: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[Grid, ...]]:
    """The pencils' way: the parts of the last cut dim go to a dim that is whole, and so on."""
    if not cut:
        yield ()
        return
    last = cut[-1]
    for dim in range(len(grid)):
        if grid[dim] == 1 and grid[last] <= kept[dim]:
            then = tuple(grid[last] if at == dim else 1 if at == last else parts for at, parts in enumerate(grid))
            yield from ((then, *rest) for rest in one_by_one(then, cut[:-1], kept, sizes))


@cache
def factorisations(number: int, count: int) -> tuple[tuple[int, ...], ...]:
    """All ways to write a number as so many ordered factors."""
    if count == 1:
        return ((number,),)
    return tuple(
        (first, *rest) for first in range(1, number + 1) if number % first == 0 for rest in factorisations(number // first, count - 1)
    )
