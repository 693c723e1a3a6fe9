"""Every operator, on shapes that are uneven, shorter than the number of ranks, or empty, with what this rank gives it."""

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
    """`kinds` are those of domain and range; a move changes no number, so that its matrix and adjoint are exact."""

    operator: Operator
    shape: tuple[int, ...]
    dtype: torch.dtype = REAL
    kinds: tuple[Kind, Kind] | None = None
    moves_only: bool = True


@cache
def group_of(count: int) -> Group:
    """The first ranks, in a line; made once, as a model would."""
    return Mesh({"x": count}).group("x")


@cache
def grid_of(rows: int, columns: int) -> Mesh:
    return Mesh({"rows": rows, "columns": columns})


def part(group: Group, boxes: tuple, rest: tuple[int, ...] = ()) -> tuple[int, ...]:
    return (*boxes[group.index].size, *rest)


def repartition_case(
    shape: tuple[int, ...], before: dict[int, tuple[int, ...]], after: dict[int, tuple[int, ...]]
) -> Callable[[int], Case]:
    """From one grid to another, by the number of ranks."""

    def build(count: int) -> Case:
        group = group_of(count)
        sources, targets = grid_tiles(shape, before[count]), grid_tiles(shape, after[count])
        return Case(moves.repartition(group, sources, targets), part(group, sources))

    return build


def uneven_repartition(count: int) -> Case:
    """Blocks of any lengths, some empty, to others."""
    group = group_of(count)
    sources = tiles([{1: (7,), 2: (7, 0), 3: (1, 6, 0), 4: (0, 4, 3, 0)}[count], (2,)])
    targets = tiles([(7,), {1: (2,), 2: (0, 2), 3: (1, 0, 1), 4: (1, 0, 0, 1)}[count]])
    return Case(moves.repartition(group, sources, targets), part(group, sources), COMPLEX)


def swap(count: int) -> Case:
    group = group_of(count)
    mine = balanced(5, count)[group.index]
    return Case(moves.swap_dims(group, (5, 3), 1, -1), (2, mine, 1, 3))


def gathered(count: int) -> Case:
    group = group_of(count)
    lengths = balanced(3, count)
    return Case(moves.all_gather(group, 1, lengths), (2, lengths[group.index]), moves_only=False)


def scattered_sum(count: int) -> Case:
    group = group_of(count)
    return Case(moves.reduce_scatter(group, -1, balanced(5, count)), (2, 5), COMPLEX, moves_only=False)


def from_root(count: int) -> Case:
    group, root = group_of(count), count - 1
    return Case(moves.broadcast_from(group, (2, 2), root), (2, 2) if group.index == root else (0, 0), moves_only=False)


def dealt(count: int) -> Case:
    group = group_of(count)
    boxes = grid_tiles((5, 2), (count, 1))
    return Case(moves.scatter(group, boxes), (5, 2) if group.index == 0 else (0, 0))


def shifted(steps: int, ring: bool, length: int = 6) -> Callable[[int], Case]:
    def build(count: int) -> Case:
        group = group_of(count)
        lengths = balanced(length, count)
        return Case(moves.shift(group, 1, lengths, steps, ring), (2, lengths[group.index]), COMPLEX)

    return build


def halo_1d(
    lengths: dict[int, tuple[int, ...]], widths: Callable[[int, int], tuple[int, int]], zeros: bool = False
) -> Callable[[int], Case]:
    def build(count: int) -> Case:
        group = group_of(count)
        operator = moves.halo([group], [1], [lengths[count]], [[widths(member, count) for member in range(count)]], zeros)
        return Case(operator, (2, lengths[count][group.index]), moves_only=False)

    return build


def halo_2d(count: int) -> Case:
    """Both dims split where there are enough ranks; widths that differ on every side."""
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}[count]
    mesh = grid_of(rows, columns)
    lengths = [balanced(5, rows), balanced(3, columns)]
    widths = [[(1, 2), (2, 1), (0, 1)][:rows], [(1, 1), (1, 2)][:columns]]
    groups = [mesh.group("rows"), mesh.group("columns")]
    mine = (lengths[0][groups[0].index], lengths[1][groups[1].index])
    return Case(moves.halo(groups, [0, 1], lengths, widths), mine, kinds=(PARTS, PARTS), moves_only=False)


def simple_sum(kind: type[Operator], dtype: torch.dtype = REAL) -> Callable[[int], Case]:
    return lambda count: Case(kind(group_of(count)), (2, 3), dtype, moves_only=False)  # type: ignore[call-arg]


def gather_case(count: int) -> Case:
    group = group_of(count)
    lengths = balanced(5, count)
    return Case(sums.Gather(group, 0, lengths), (lengths[group.index], 2), kinds=(PARTS, SHARED))


def keep_case(count: int) -> Case:
    return Case(sums.Keep(group_of(count), 0, balanced(5, count)), (5, 2), kinds=(SHARED, PARTS))


def on_one(operator: Operator, shape: tuple[int, ...], dtype: torch.dtype = REAL, exact: bool = False) -> Callable[[int], Case]:
    return lambda count: Case(operator, shape, dtype, (PARTS, PARTS), exact)


def truncated_fft(count: int) -> Case:
    """rfft along the whole dim, truncation, transpose, fft along the other dim, truncation."""
    group = group_of(count)
    operator: Operator = local.RFFT(1, 5)
    for then in (local.Restrict(1, 3, 2), moves.swap_dims(group, (6, 2), 0, 1), local.DFT(0), local.Restrict(0, 6, 2, 1)):
        operator = then @ operator
    return Case(operator, (balanced(6, count)[group.index], 5), REAL, (PARTS, PARTS), moves_only=False)


ROWS = torch.tensor([[0, 3, -1], [3, 1, 3]])

CASES: dict[str, Callable[[int], Case]] = {
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
    "dft": on_one(local.DFT(0), (5, 2), COMPLEX),
    "inverse dft": on_one(local.InverseDFT(-1), (2, 4), COMPLEX),
    "rfft, even": on_one(local.RFFT(0, 6), (6, 2)),
    "rfft, odd": on_one(local.RFFT(1, 7), (2, 7)),
    "inverse rfft, even": on_one(local.InverseRFFT(0, 6), (4, 2), COMPLEX),
    "inverse rfft, odd": on_one(local.InverseRFFT(0, 7), (4, 2), COMPLEX),
    "restrict": on_one(local.Restrict(1, 7, 2, 3), (2, 7), COMPLEX, exact=True),
    "zero-pad": on_one(local.ZeroPad(0, 7, 3, 0), (3, 2), exact=True),
    "select": on_one(local.Select(ROWS, 4), (4, 2)),
    "scatter-add": on_one(local.ScatterAdd(ROWS, 4), (2, 3, 2)),
    "truncated fft": truncated_fft,
}
