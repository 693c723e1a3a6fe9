"""What every movement moves where, against a whole tensor cut by hand; what it costs; and that one rank pays nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel import local, moves, sums
from modeling.parallel.ledger import Cost, recording
from modeling.parallel.mesh import ALONE, Mesh
from modeling.parallel.operator import Operator
from modeling.parallel.partition import Box, balanced, grid_tiles, starts, tiles
from tests.modeling.parallel.operator_cases import grid_of, group_of
from tests.ranks import Ranks

RANKS = (1, 2, 3, 4)


def cut(full: Tensor, box: Box) -> Tensor:
    return full[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]


def numbers(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape) + 1


def moves_boxes(count: int) -> None:
    """Repartition between grids, with what it sends: every index that changes its rank, once."""
    group, full = group_of(count), numbers(5, 7)
    sources = grid_tiles((5, 7), (count, 1))
    targets = grid_tiles((5, 7), (1, count))
    with recording() as ledger:
        y = moves.repartition(group, sources, targets)(cut(full, sources[group.index]))
    assert torch.equal(y, cut(full, targets[group.index]))
    mine = sources[group.index]
    leaving = [mine.meet(box).volume for member, box in enumerate(targets) if member != group.index]
    assert ledger.total() == Cost(8 * sum(leaving), sum(volume > 0 for volume in leaving))
    rows, width = balanced(5, count)[group.index], balanced(7, count)[group.index]
    assert ledger.total().bytes == 8 * rows * (7 - width)


def moves_halos(count: int) -> None:
    """Edges come from wherever they lie, further than one neighbour too; beyond the ends there is nothing."""
    group, full = group_of(count), numbers(2, 7)
    lengths = balanced(7, count)
    for left, right in ((1, 1), (3, 0), (0, 5), (-1, 2), (2, -1), (-1, -1)):
        with recording() as ledger:
            y = moves.halo([group], [1], [lengths], [[(left, right)] * count])(cut(full, tiles([(2,), lengths])[group.index]))
        first, last = starts(lengths)[group.index], starts(lengths)[group.index] + lengths[group.index]
        begin, end = max(0, first - left), min(7, last + right)
        assert torch.equal(y, full[:, begin : max(begin, end)])
        wanted = [range(max(0, at - left), min(7, at + length + right)) for at, length in zip(starts(lengths), lengths, strict=True)]
        sent = [len(range(max(first, one.start), min(last, one.stop))) for member, one in enumerate(wanted) if member != group.index]
        assert ledger.total() == Cost(8 * 2 * sum(sent), sum(one > 0 for one in sent))
        padded = torch.nn.functional.pad(full, (6, 6))[:, first - left + 6 : max(first - left, last + right) + 6]
        part = cut(full, tiles([(2,), lengths])[group.index])
        with recording() as with_zeros:
            assert torch.equal(moves.halo([group], [1], [lengths], [[(left, right)] * count], zeros=True)(part), padded)
        assert with_zeros.total() == ledger.total(), "zeros are not sent"


def moves_corners(count: int) -> None:
    """Two split dims: a corner comes from the rank across, by way of a neighbour."""
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}[count]
    mesh, full = grid_of(rows, columns), numbers(5, 6)
    groups = [mesh.group("rows"), mesh.group("columns")]
    lengths = [balanced(5, rows), balanced(6, columns)]
    operator = moves.halo(groups, [0, 1], lengths, [[(1, 2)] * rows, [(2, 1)] * columns])
    boxes = tiles(lengths)
    mine = boxes[groups[0].index * columns + groups[1].index]
    y = operator(cut(full, mine))
    (top, left), (bottom, right) = mine.start, mine.stop
    assert torch.equal(y, full[max(0, top - 1) : min(5, bottom + 2), max(0, left - 2) : min(6, right + 1)])


def moves_round(count: int) -> None:
    group, full = group_of(count), numbers(2, 6)
    lengths = balanced(6, count)
    parts = [cut(full, box) for box in tiles([(2,), lengths])]
    me = group.index
    for steps in (1, -1, 2):
        assert torch.equal(moves.shift(group, 1, lengths, steps)(parts[me]), parts[(me - steps) % count])
        line = moves.shift(group, 1, lengths, steps, ring=False)(parts[me])
        assert torch.equal(line, parts[me - steps] if 0 <= me - steps < count else full[:, :0])
    once = moves.shift(group, 1, lengths)(parts[me])
    assert torch.equal(moves.shift(group, 1, lengths, turned=1)(once), parts[(me - 2) % count])


def gathers_and_sums(count: int) -> None:
    group, full = group_of(count), numbers(5, 2)
    lengths, me = balanced(5, count), group.index
    part = cut(full, tiles([lengths, (2,)])[me])
    assert torch.equal(moves.all_gather(group, 0, lengths)(part), full)
    assert torch.equal(sums.Gather(group, 0, lengths)(part), full)
    assert torch.equal(sums.Keep(group, 0, lengths)(full), part)
    total = sum(range(1, count + 1))
    with recording() as ledger:
        scattered = moves.reduce_scatter(group, 0, lengths)(full * (me + 1))
    assert torch.equal(scattered, part * total)
    assert ledger.total().bytes == 8 * 2 * (5 - lengths[me])
    for kind in (sums.AllSumReduce, sums.SumReduce):
        with recording() as ledger:
            assert torch.equal(kind(group)(full * (me + 1)), full * total)
        shares = balanced(10, count)
        # Two ranks send each other everything; more send every other rank its share, and then their own sum to all.
        expected = {1: 0, 2: 8 * 10}.get(count, 8 * (10 - shares[me] + (count - 1) * shares[me]))
        assert ledger.total().bytes == expected
    assert torch.equal(sums.Broadcast(group)(full), full)
    held = full if me == count - 1 else full.new_empty(0, 0)
    assert torch.equal(moves.broadcast_from(group, (5, 2), count - 1)(held), full)
    boxes = grid_tiles((5, 2), (count, 1))
    dealt = moves.scatter(group, boxes)(full if me == 0 else full.new_empty(0, 0))
    assert torch.equal(dealt, part)
    back = moves.scatter(group, boxes).adjoint(dealt)
    assert torch.equal(back, full if me == 0 else full.new_empty(0, 0))


def sums_are_the_same_bits(count: int) -> None:
    """On every rank, in every dtype, and as the members' order gives them in at least float32."""
    from tests.modeling.parallel.proofs import everyone

    group = group_of(count)
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        x = torch.randn(
            7, dtype=torch.complex64 if dtype.is_complex else torch.float32, generator=torch.Generator().manual_seed(group.index)
        ).to(dtype)
        y = sums.AllSumReduce(group)(x)
        copies, given = everyone(group, y), everyone(group, x)
        assert all(torch.equal(copy, y) for copy in copies)
        wide = torch.promote_types(dtype, torch.float32)
        total = given[0].to(wide)
        for one in given[1:]:
            total = total + one.to(wide)
        assert torch.equal(y, total.to(dtype))


def overlaps(count: int) -> None:
    """start and finish give what the call gives, there and back, whatever is computed between them."""
    group, full = group_of(count), numbers(4, 6)
    boxes = tiles([(4,), balanced(6, count)])
    for operator in (
        moves.halo([group], [1], [balanced(6, count)], [[(1, 1)] * count]),
        moves.all_gather(group, 1, balanced(6, count)),
        sums.SumReduce(group),
    ):
        x = cut(full, boxes[group.index]) if not isinstance(operator, sums.SumReduce) else full * (group.index + 1)
        grads = []
        for started in (False, True):
            leaf = x.clone().requires_grad_()
            if started:
                under_way = operator.start(leaf * 2)
                beside = (leaf * 3).sin()
                y = under_way.finish()
            else:
                y, beside = operator(leaf * 2), (leaf * 3).sin()
            (y.square().sum() + beside.sum()).backward()
            grads.append((y.detach(), leaf.grad))
        assert torch.equal(grads[0][0], grads[1][0])
        assert torch.equal(grads[0][1], grads[1][1])  # type: ignore[arg-type]


def differentiates_twice(count: int) -> None:
    """A linear operator inside a cubic: the second gradient passes it too."""
    group = group_of(count)
    x = torch.full((2, balanced(3, count)[group.index]), 2.0, dtype=torch.float64, requires_grad=True)
    y = moves.all_gather(group, 1, balanced(3, count))(x)
    (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    # Each rank's loss holds all copies, so first = k * 3 x^2; its sum over all ranks gives k * 6 x, and each copy's k again.
    assert torch.allclose(first, torch.full_like(x, count * 12.0))
    assert torch.allclose(second, torch.full_like(x, count * 12.0))


@pytest.mark.parametrize(
    "check",
    [moves_boxes, moves_halos, moves_corners, moves_round, gathers_and_sums, sums_are_the_same_bits, overlaps, differentiates_twice],
)
@pytest.mark.parametrize("count", RANKS)
def test_movements(ranks: Ranks, check: Callable[[int], None], count: int) -> None:
    ranks(count, check, count)


@pytest.mark.parametrize(
    "operator",
    [
        sums.Broadcast(ALONE),
        sums.SumReduce(ALONE),
        sums.AllSumReduce(ALONE),
        sums.Gather(ALONE, 0, (3,)),
        moves.all_gather(ALONE, 0, (3,)),
        moves.reduce_scatter(ALONE, 0, (3,)),
        moves.repartition(ALONE, grid_tiles((3,), (1,)), grid_tiles((3,), (1,))),
        moves.halo([ALONE], [0], [(3,)], [[(2, 1)]]),
        moves.shift(ALONE, 0, (3,)),
        moves.broadcast_from(ALONE, (3,)),
    ],
    ids=lambda operator: type(operator).__name__ + " " + operator.name,
)
def test_one_rank_gets_its_argument_back(operator: Operator) -> None:
    x = torch.ones(3, requires_grad=True)
    with recording() as ledger:
        assert operator(x) is x
        assert operator.adjoint(x) is x
        assert operator.start(x).finish() is x
    assert ledger.calls == []


def test_a_mixture_of_shared_and_copies_is_refused() -> None:
    """A column-parallel product whose sum is taken twice, or whose input was not broadcast, would be wrong by the number of ranks."""
    from modeling.parallel.mesh import Group
    from modeling.parallel.space import copies, shared

    pair = Group((0, 1), 0)
    add, spread, both = sums.SumReduce(pair), sums.Broadcast(pair), sums.AllSumReduce(pair)
    assert (add @ spread).domain == shared(pair)
    assert (both @ spread).range == copies(pair)
    four, back = Group((0, 1, 2, 3), 0), Group((1, 0), 1)
    for wrong in (lambda: sums.SumReduce(four) @ add, lambda: sums.SumReduce(back) @ add):
        with pytest.raises(ModelError, match=r"overlap but are not the same|count copies wrongly"):
            wrong()
    for wrong in (lambda: add @ add, lambda: spread @ spread, lambda: add @ local.DFT(0) @ add, lambda: both @ add):
        with pytest.raises(ModelError, match="count copies wrongly"):
            wrong()
    other = sums.Broadcast(Group((0, 2), 0))
    assert (add @ other @ spread).range == shared(pair), "another mesh axis has its own kinds"
    with pytest.raises(ModelError, match="count copies wrongly"):
        _ = add @ other @ add
    lengths = (2, 1)
    assert (moves.reduce_scatter(pair, 0, lengths) @ moves.all_gather(pair, 0, lengths)).domain.boxes == tiles([lengths])
    with pytest.raises(ModelError, match="parts do not agree"):
        _ = moves.all_gather(pair, 0, (1, 2)) @ moves.reduce_scatter(pair, 0, lengths)


def costs(count: int) -> None:
    """What every movement sends and its adjoint sends, by formulas over block lengths; and one name per operator in the ledger."""
    group, size, total = group_of(count), 8 * 2, 11
    lengths = balanced(total, count)
    me, others = group.index, count - 1
    mine, after = lengths[me], lengths[(me + 1) % count]
    root = me == 0
    expected: dict[str, tuple[Operator, tuple[int, ...], int, int]] = {
        "AllGather": (moves.all_gather(group, 0, lengths), (mine, 2), others * mine, total - mine),
        "Gather": (sums.Gather(group, 0, lengths), (mine, 2), others * mine, 0),
        "Shift": (moves.shift(group, 0, lengths), (mine, 2), mine if others else 0, lengths[(me - 1) % count] if others else 0),
        "Broadcast": (
            moves.broadcast_from(group, (total, 2)),
            (total if root else 0, 2 if root else 0),
            others * total * root,
            total * (not root),
        ),
        "Repartition": (
            moves.scatter(group, tiles([lengths, (2,)])),
            (total if root else 0, 2 if root else 0),
            (total - mine) * root,
            mine * (not root),
        ),
    }
    assert after in lengths
    for name, (operator, shape, there, back) in expected.items():
        with recording() as ledger:
            y = operator(torch.ones(shape, dtype=torch.float64))
        assert ledger.total().bytes == size * there, name
        assert set(ledger.by_operator()) <= {name}
        with recording() as ledger:
            operator.adjoint(y)
        assert ledger.total().bytes == size * back, f"{name}*"
    with recording() as ledger:
        sums.SumReduce(group)(torch.ones(5))
    assert set(ledger.by_operator()) <= {"SumReduce"}


@pytest.mark.parametrize("count", RANKS)
def test_what_is_sent(ranks: Ranks, count: int) -> None:
    ranks(count, costs, count)


def conjugated(count: int) -> None:
    """Views that are conjugated when they are read move as any other."""
    group = group_of(count)
    z = torch.complex(numbers(3, 2), numbers(3, 2)) * (1 + group.index)
    part = tiles([balanced(3, count), (2,)])[group.index]
    gathered = moves.all_gather(group, 0, balanced(3, count))
    assert torch.equal(gathered(cut(z, part).conj()), gathered(cut(z, part)).conj().resolve_conj())
    assert torch.equal(sums.SumReduce(group)(z.conj()), sums.SumReduce(group)(z).conj().resolve_conj())


@pytest.mark.parametrize("count", [2, 3])
def test_conjugated_views(ranks: Ranks, count: int) -> None:
    ranks(count, conjugated, count)


def second_derivative() -> None:
    group = group_of(2)
    x = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    y = moves.all_gather(group, 1, (1, 1)).start(x).finish()
    with pytest.raises(ModelError, match="AllGather was started, so its gradient cannot be differentiated again"):
        torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)


def test_a_started_operator_refuses_a_second_derivative(ranks: Ranks) -> None:
    """It would leave out what was sent; the call gives it."""
    ranks(2, second_derivative)


def lets_go(count: int) -> None:
    """Without Python's collector of circles: what a step has made is gone with it, so that the next one finds the room."""
    import gc
    import weakref

    group = group_of(count)
    gather = moves.all_gather(group, 0, (1,) * count)
    gc.disable()
    try:
        for started in (False, True):
            leaf = torch.ones(1, 3, requires_grad=True)
            sent = 2 * leaf
            way = gather.start(sent) if started else None
            y = gather(sent) if way is None else way.finish()
            y.sum().backward()
            gone = [weakref.ref(sent), weakref.ref(y)]
            del sent, y, way
            assert [one() for one in gone] == [None, None], f"started {started}: tensors of the step are still there"
    finally:
        gc.enable()


def test_a_step_leaves_nothing_behind(ranks: Ranks) -> None:
    ranks(2, lets_go, 2)


def test_ledgers_may_lie_in_one_another() -> None:
    from modeling.parallel.ledger import record

    with recording() as outer:
        record("a", Cost(1))
        with recording() as inner:
            record("b", Cost(2))
        record("c", Cost(4))
        with recording() as empty:
            pass
        record("d", Cost(8))
    assert [name for name, _ in outer.calls] == ["a", "b", "c", "d"]
    assert [name for name, _ in inner.calls] == ["b"]
    assert not empty.calls
    assert outer.total() == Cost(15)


def test_what_does_not_fit_is_named() -> None:
    from modeling.parallel.mesh import Group

    pair = Group((0, 1), 1)
    with pytest.raises(ModelError, match=r"AllGather: member 1 .* should give \[1\] over dims \[1\], got the shape \[3, 2\]"):
        moves.all_gather(pair, 1, (2, 1))(torch.ones(3, 2))
    with pytest.raises(ModelError, match="2 ranks need as many parts"):
        moves.repartition(pair, grid_tiles((3,), (1,)), grid_tiles((3,), (1,)))
    with pytest.raises(ModelError, match="do not hold every index once"):
        moves.repartition(pair, grid_tiles((3,), (2,)), [Box((0,), (1,)), Box((0,), (2,))])
    with pytest.raises(ModelError, match="as many lengths and widths"):
        moves.halo([pair], [0], [(3,)], [[(1, 1)]])
    with pytest.raises(ModelError, match="cannot be kept"):
        local.Restrict(0, 4, 3, 2)
    with pytest.raises(ModelError, match="should have the length 5"):
        local.RFFT(0, 5)(torch.ones(4))
    with pytest.raises(ModelError, match="6 places for 1 ranks"):
        Mesh({"a": 2, "b": 3})
    with pytest.raises(ModelError, match="at least 1"):
        Mesh({"a": 0})
