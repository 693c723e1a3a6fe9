"""Every operator, on shapes that are uneven, shorter than the number of ranks, or empty, with what this rank gives it.

A case is built for a number of ranks and a scale that multiplies every size: 1 for matrices, more for inner products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from modeling.parallel import local, moves, sums
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.operator import Operator
from modeling.parallel.partition import balanced, grid_tiles, tiles
from modeling.parallel.space import Kind

REAL, COMPLEX = torch.float64, torch.complex128
PARTS, COPIES, SHARED = Kind.PARTS, Kind.COPIES, Kind.SHARED


@dataclass(frozen=True)
class Case:
    """`kinds` are those of domain and range. Only `transform`s compute; `moves_only` is for those that change and add no number at all."""

    operator: Operator
    shape: tuple[int, ...]
    dtype: torch.dtype = REAL
    kinds: tuple[Kind, Kind] | None = None
    moves_only: bool = True
    transform: bool = False


Build = Callable[[int, int], Case]


def times(scale: int, lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(scale * length for length in lengths)


@cache
def group_of(count: int) -> Group:
    """The first ranks, in a line; made once, as a model would."""
    return Mesh({"x": count}).group("x")


@cache
def grid_of(rows: int, columns: int) -> Mesh:
    return Mesh({"rows": rows, "columns": columns})


def part(group: Group, boxes: tuple, rest: tuple[int, ...] = ()) -> tuple[int, ...]:
    return (*boxes[group.index].size, *rest)


def repartition_case(shape: tuple[int, ...], before: dict[int, tuple[int, ...]], after: dict[int, tuple[int, ...]]) -> Build:
    """From one grid to another, by the number of ranks."""

    def build(count: int, scale: int) -> Case:
        group, whole = group_of(count), times(scale, shape)
        sources, targets = grid_tiles(whole, before[count]), grid_tiles(whole, after[count])
        return Case(moves.repartition(group, sources, targets), part(group, sources))

    return build


def uneven_repartition(count: int, scale: int) -> Case:
    """Blocks of any lengths, some empty, to others."""
    group = group_of(count)
    sources = tiles([times(scale, {1: (7,), 2: (7, 0), 3: (1, 6, 0), 4: (0, 4, 3, 0)}[count]), (2 * scale,)])
    targets = tiles([(7 * scale,), times(scale, {1: (2,), 2: (0, 2), 3: (1, 0, 1), 4: (1, 0, 0, 1)}[count])])
    return Case(moves.repartition(group, sources, targets), part(group, sources), COMPLEX)


def swap(count: int, scale: int) -> Case:
    group = group_of(count)
    mine = balanced(5 * scale, count)[group.index]
    return Case(moves.swap_dims(group, (5 * scale, 3 * scale), 1, -1), (2, mine, 1, 3 * scale))


def gathered(count: int, scale: int) -> Case:
    group = group_of(count)
    lengths = balanced(3 * scale, count)
    return Case(moves.all_gather(group, 1, lengths), (2, lengths[group.index]), moves_only=False)


def scattered_sum(count: int, scale: int) -> Case:
    group = group_of(count)
    return Case(moves.reduce_scatter(group, -1, balanced(5 * scale, count)), (2, 5 * scale), COMPLEX, moves_only=False)


def from_root(count: int, scale: int) -> Case:
    group, root = group_of(count), count - 1
    shape = times(scale, (2, 2))
    return Case(moves.broadcast_from(group, shape, root), shape if group.index == root else (0, 0), moves_only=False)


def dealt(count: int, scale: int) -> Case:
    group, shape = group_of(count), times(scale, (5, 2))
    return Case(moves.scatter(group, grid_tiles(shape, (count, 1))), shape if group.index == 0 else (0, 0))


def shifted(steps: int, ring: bool, length: int = 6) -> Build:
    def build(count: int, scale: int) -> Case:
        group = group_of(count)
        lengths = balanced(length * scale, count)
        return Case(moves.shift(group, 1, lengths, steps, ring), (2, lengths[group.index]), COMPLEX)

    return build


def halo_1d(lengths: dict[int, tuple[int, ...]], widths: Callable[[int, int], tuple[int, int]], zeros: bool = False) -> Build:
    def build(count: int, scale: int) -> Case:
        group, here = group_of(count), times(scale, lengths[count])
        wanted = [(scale * left, scale * right) for left, right in (widths(member, count) for member in range(count))]
        return Case(moves.halo([group], [1], [here], [wanted], zeros), (2, here[group.index]), moves_only=False)

    return build


def halo_2d(count: int, scale: int) -> Case:
    """Both dims split where there are enough ranks; widths that differ on every side."""
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}[count]
    mesh = grid_of(rows, columns)
    lengths = [balanced(5 * scale, rows), balanced(3 * scale, columns)]
    widths = [[(1, 2), (2, 1), (0, 1)][:rows], [(1, 1), (1, 2)][:columns]]
    groups = [mesh.group("rows"), mesh.group("columns")]
    mine = (lengths[0][groups[0].index], lengths[1][groups[1].index])
    return Case(moves.halo(groups, [0, 1], lengths, widths), mine, kinds=(PARTS, PARTS), moves_only=False)


def simple_sum(kind: type[Operator], dtype: torch.dtype = REAL) -> Build:
    return lambda count, scale: Case(kind(group_of(count)), (2 * scale, 3), dtype, moves_only=False)  # type: ignore[call-arg]


def gather_case(count: int, scale: int) -> Case:
    group = group_of(count)
    lengths = balanced(5 * scale, count)
    return Case(sums.Gather(group, 0, lengths), (lengths[group.index], 2), kinds=(PARTS, SHARED))


def keep_case(count: int, scale: int) -> Case:
    return Case(sums.Keep(group_of(count), 0, balanced(5 * scale, count)), (5 * scale, 2), kinds=(SHARED, PARTS))


def transform(build: Callable[[int], Operator], shape: Callable[[int], tuple[int, ...]], dtype: torch.dtype = REAL) -> Build:
    """A local transform of a length that grows with the scale and stays even or odd."""
    return lambda count, scale: Case(build(2 * (scale - 1)), shape(2 * (scale - 1)), dtype, (PARTS, PARTS), False, True)


def on_one(operator: Operator, shape: tuple[int, ...], dtype: torch.dtype = REAL, exact: bool = False) -> Build:
    return lambda count, scale: Case(operator, (*shape, scale), dtype, (PARTS, PARTS), exact)


def truncated_fft(count: int, scale: int) -> Case:
    """rfft along the whole dim, truncation, transpose, fft along the other dim, truncation."""
    group = group_of(count)
    rows, length, low = 6 * scale, 2 * scale + 3, 2 * scale
    operator: Operator = local.RFFT(1, length)
    kept = min(low, length // 2 + 1)
    for then in (
        local.Restrict(1, length // 2 + 1, kept),
        moves.swap_dims(group, (rows, kept), 0, 1),
        local.DFT(0),
        local.Restrict(0, rows, 2, 1),
    ):
        operator = then @ operator
    return Case(operator, (balanced(rows, count)[group.index], length), REAL, (PARTS, PARTS), False, True)


ROWS = torch.tensor([[0, 3, -1], [3, 1, 3]])

CASES: dict[str, Build] = {
    "repartition rows to columns": repartition_case(
        (3, 5), {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (4, 1)}, {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (1, 4)}
    ),
    "repartition between grids": repartition_case(
        (3, 2, 3), {1: (1, 1, 1), 2: (2, 1, 1), 3: (1, 1, 3), 4: (2, 1, 2)}, {1: (1, 1, 1), 2: (1, 1, 2), 3: (3, 1, 1), 4: (1, 4, 1)}
    ),
    "repartition uneven, complex": uneven_repartition,
    "swap dims": swap,
    "all-gather": gathered,
    "reduce-scatter, complex": scattered_sum,
    "broadcast from the last": from_root,
    "scatter": dealt,
    "shift in a ring": shifted(1, True),
    "shift back by two": shifted(-2, True, 5),
    "shift on a line": shifted(1, False, 3),
    "halo": halo_1d({1: (6,), 2: (3, 3), 3: (2, 2, 2), 4: (2, 2, 1, 1)}, lambda member, count: (1, 1)),
    "halo, uneven and long": halo_1d(
        {1: (6,), 2: (1, 5), 3: (1, 4, 1), 4: (2, 0, 3, 1)}, lambda member, count: (member % 3, (2 * member + 3) % 5)
    ),
    "halo, negative": halo_1d(
        {1: (6,), 2: (3, 3), 3: (3, 2, 2), 4: (3, 2, 2, 2)}, lambda member, count: (-1, 1) if member % 2 else (1, -1)
    ),
    "halo with zeros at the ends": halo_1d(
        {1: (6,), 2: (1, 5), 3: (1, 4, 1), 4: (2, 0, 3, 1)}, lambda member, count: (3 - member, 2 * member - 1), zeros=True
    ),
    "halo in two dims": halo_2d,
    "broadcast": simple_sum(sums.Broadcast),
    "sum-reduce": simple_sum(sums.SumReduce),
    "all-sum-reduce": simple_sum(sums.AllSumReduce),
    "all-sum-reduce, complex": simple_sum(sums.AllSumReduce, COMPLEX),
    "gather": gather_case,
    "keep": keep_case,
    "dft": transform(lambda more: local.DFT(0), lambda more: (5 + more, 2), COMPLEX),
    "inverse dft": transform(lambda more: local.InverseDFT(-1), lambda more: (2, 4 + more), COMPLEX),
    "rfft, even": transform(lambda more: local.RFFT(0, 6 + more), lambda more: (6 + more, 2)),
    "rfft, odd": transform(lambda more: local.RFFT(1, 7 + more), lambda more: (2, 7 + more)),
    "inverse rfft, even": transform(lambda more: local.InverseRFFT(0, 6 + more), lambda more: (4 + more // 2, 2), COMPLEX),
    "inverse rfft, odd": transform(lambda more: local.InverseRFFT(0, 7 + more), lambda more: (4 + more // 2, 2), COMPLEX),
    "restrict": on_one(local.Restrict(1, 7, 2, 3), (2, 7), COMPLEX, exact=True),
    "zero-pad": on_one(local.ZeroPad(0, 7, 3, 0), (3, 2), exact=True),
    "select": on_one(local.Select(ROWS, 4), (4, 2)),
    "scatter-add": on_one(local.ScatterAdd(ROWS, 4), (2, 3, 2)),
    "truncated fft": truncated_fft,
}
