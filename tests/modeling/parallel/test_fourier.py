"""The truncated transform and the spectral convolution: one rank against dense DFT matrices, many against one, and what they send."""

import re
from collections.abc import Callable
from itertools import product
from math import prod

import pytest
import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel import fourier, fourier_plan, local, transforms
from modeling.parallel.fourier import FourierTransform
from modeling.parallel.fourier_plan import FourierPlan, layouts, plan_fourier
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import ALONE
from modeling.parallel.operator import Chain, Operator
from modeling.parallel.space import Kind
from modeling.parallel.transforms import Kept, Scale, analysis, synthesis
from tests.modeling.parallel.fourier_cases import (
    BATCH,
    FIELDS,
    WIDTH_IN,
    WIDTH_OUT,
    convolution,
    dense_reference,
    plans,
    whole_field,
    whole_run,
)
from tests.modeling.parallel.operator_cases import group_of
from tests.modeling.parallel.proofs import prove_dot, prove_matrix
from tests.ranks import Ranks

RANKS = (1, 2, 3, 4)
BOUND = 1e-11
LINES = [Kept(6, 4, 0, True), Kept(7, 4, 0, True), Kept(8, 3, 0, True), Kept(6, 2, 2, False), Kept(7, 4, 3, False), Kept(5, 2, 1, False)]
PARTS = (Kind.PARTS, Kind.PARTS)


def close(name: str, ours: Tensor, theirs: Tensor, bound: float = BOUND) -> None:
    """Relative in norm."""
    assert ours.shape == theirs.shape, f"{name}: {list(ours.shape)} for {list(theirs.shape)}"
    error = (ours - theirs).norm() / theirs.norm().clamp(min=1e-30) if theirs.numel() else 0.0
    assert error <= bound, f"{name} differs by {error:.3g} of its norm"


# One dim.


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize("kept", LINES, ids=str)
def test_transforms_and_their_adjoints(kept: Kept, by_product: bool) -> None:
    there, back = analysis(1, kept, by_product), synthesis(-2, kept, by_product)
    field, modes = torch.float64 if kept.real else torch.complex128, torch.complex128
    prove_matrix(ALONE, there, (2, kept.length, 2), field, PARTS, 1e-14)
    prove_matrix(ALONE, back, (2, kept.count, 2), modes, PARTS, 1e-14)
    prove_dot(ALONE, there, (3, kept.length, 2), field, 1e-13, PARTS)
    prove_dot(ALONE, back, (3, kept.count, 2), modes, 1e-13, PARTS)
    prove_matrix(ALONE, Scale(0, (1.0, 0.5, 2.0)), (3, 2), modes, PARTS)


@pytest.mark.parametrize("kept", LINES, ids=str)
def test_products_are_ffts(kept: Kept) -> None:
    x = torch.randn(2, kept.length, 3, dtype=torch.float64 if kept.real else torch.complex128)
    c = torch.randn(2, kept.count, 3, dtype=torch.complex128)
    for build, given in ((analysis, x), (synthesis, c)):
        first, second = (build(1, kept, by_product) for by_product in (True, False))
        close("product", first(given), second(given), 1e-14)
    if kept.count == (kept.length // 2 + 1 if kept.real else kept.length):
        close("inverse", synthesis(1, kept)(analysis(1, kept)(x)), x, 1e-14)


def test_parts_without_elements_pass() -> None:
    for kept, by_product in product(LINES, (True, False)):
        field = torch.zeros(0, kept.length, 2, dtype=torch.float64 if kept.real else torch.complex128)
        modes = analysis(1, kept, by_product)(field)
        assert modes.shape == (0, kept.count, 2)
        assert synthesis(1, kept, by_product)(modes).shape == field.shape


def test_modes_that_are_not_there_are_refused() -> None:
    with pytest.raises(ModelError, match="5 low and 0 high modes cannot be kept: a dim of 7 points has 4"):
        Kept(7, 5, 0, True)
    with pytest.raises(ModelError, match="dim 1 should have the length 6"):
        analysis(1, LINES[0], True)(torch.zeros(2, 5))


# One rank.


def check_against_dense(sizes: tuple[int, ...], modes: tuple[int, ...], by_product: bool | None) -> None:
    """Outputs, and gradients as autograd takes them through the dense matrices."""
    conv, dy = convolution(modes), whole_field(sizes, WIDTH_OUT, 2)
    ours, theirs = (whole_field(sizes, WIDTH_IN, 1).requires_grad_() for _ in range(2))
    y = conv(ours, FourierTransform(ALONE, plan_fourier(sizes, modes, 1), by_product))
    expected = dense_reference(theirs, conv.weight, modes)
    close("y", y, expected, 1e-12)
    found = zip(torch.autograd.grad(y, (ours, conv.weight), dy), torch.autograd.grad(expected, (theirs, conv.weight), dy), strict=True)
    for name, (one, other) in zip(("dx", "dweight"), found, strict=True):
        close(name, one, other, 1e-12)


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize("field", FIELDS)
def test_one_rank_against_dense_matrices(field: str, by_product: bool) -> None:
    with recording() as ledger:
        check_against_dense(*FIELDS[field], by_product)
    assert ledger.calls == []


def test_second_gradients() -> None:
    """A loss that holds a gradient, as physics-informed ones do."""
    conv, plan = convolution((4, 4)), plan_fourier((5, 6), (4, 4), 1)
    transform = FourierTransform(ALONE, plan)
    x = whole_field((5, 6), WIDTH_IN, 1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: conv(x, transform).square(), x)


def wrong_length(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """irfft without n gives an even length, whatever went in."""
    right = synthesis(dim, kept, False)
    if not kept.real:
        return right
    assert isinstance(right, Chain)
    return Chain([*right.operators[:-1], local.AdjointRFFT(dim, 2 * (kept.length // 2))])


def wrong_half(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """The highest modes for the lowest: the middle of an unshifted spectrum."""
    if kept.real:
        return analysis(dim, kept, False)
    weights = (1 / kept.length,) * kept.count
    first = (kept.length - kept.count) // 2
    return Chain(
        [
            local.DFT(dim),
            local.Restrict(dim, kept.length, kept.length - first),
            local.Restrict(dim, kept.length - first, 0, kept.count),
            Scale(dim, weights),
        ]
    )


def no_mirror_weights(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """Every mode of the half spectrum counted once."""
    modes = kept.length // 2 + 1 if kept.real else kept.length
    last = local.AdjointRFFT(dim, kept.length) if kept.real else local.AdjointDFT(dim)
    return Chain([local.ZeroPad(dim, modes, kept.low, kept.high), last])


def unweighted_adjoint(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """The adjoint of the synthesis taken for the analysis, n times: without its weights."""

    class Wrong(transforms.AdjointProduct):
        @property
        def adjoint(self) -> Operator:
            return transforms.Product(self.dim, self.kept, (1.0,) * self.kept.count)

    return Wrong(dim, kept, kept.mirror_weights)


@pytest.mark.parametrize(
    ("place", "mutation"),
    [("synthesis", wrong_length), ("analysis", wrong_half), ("synthesis", no_mirror_weights), ("synthesis", unweighted_adjoint)],
)
def test_faults_are_caught(monkeypatch: pytest.MonkeyPatch, place: str, mutation: Callable[..., Operator]) -> None:
    check_against_dense((7, 9), (4, 6), None)
    monkeypatch.setattr(fourier, place, mutation)
    with pytest.raises((AssertionError, ModelError)):
        check_against_dense((7, 9), (4, 6), None)


# The plan.


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("field", FIELDS)
def test_the_plan_counts_what_moves(field: str, count: int) -> None:
    """Every layout's figures against sets of indices, and the chosen one against all others."""
    sizes, modes = FIELDS[field]
    every = [FourierPlan(sizes, modes, grids) for grids in layouts(sizes, fourier_plan.kept_modes(modes), count)]
    if not every:
        with pytest.raises(ModelError, match="every rank needs one"):
            plan_fourier(sizes, modes, count)
        return
    for plan in every:
        for stage, moved in enumerate(plan.moved):
            tiles = [fourier_plan.grid_tiles(plan.lengths(stage), plan.grids[at]) for at in (stage, stage + 1)]
            held = [[set(product(*map(range, box.start, box.stop))) for box in one] for one in tiles]
            assert moved == tuple((len(a - b), len(b - a)) for a, b in zip(*held, strict=True))
        assert all(box.volume for box in plan.mode_boxes)
    chosen = plan_fourier(sizes, modes, count)
    best = min((plan for plan in every if plan.idle == chosen.idle), key=lambda plan: plan.most_bytes)
    assert chosen.idle == min(plan.idle for plan in every)
    assert chosen.most_bytes == best.most_bytes
    assert chosen.most_bytes == max(
        8 * sum(there + back for there, back in (moved[rank] for moved in chosen.moved)) for rank in range(count)
    )


def test_slabs_and_pencils() -> None:
    """One transpose where the kept modes allow it; pencils, one dim at a time, where there are more ranks than points or modes."""
    slabs = plan_fourier((131, 130, 129, 64), (18, 18, 18, 12), 8)
    assert sum(parts > 1 for parts in slabs.grids[0]) == 1
    assert len(slabs.grids) == 2
    pencils = plan_fourier((64, 64, 64), (16, 16, 16), 128)
    assert pencils.grids == ((16, 8, 1), (16, 1, 8), (1, 16, 8))
    assert pencils.turned == ((2,), (1,), (0,))
    assert slabs.untruncated().most_bytes > 30 * slabs.most_bytes
    assert "128 ranks, pencils: the field 64 x 64 x 64 on the grid 16 x 8 x 1, then its 16 x 16 x 9 modes on 16 x 1 x 8, 1 x 16 x 8" in str(
        pencils
    )
    assert str(plan_fourier((8, 8), (4, 4), 1)) == "1 rank: the field 8 x 8 and its 4 x 3 modes on one rank; nothing is sent"


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(
        ModelError, match=re.escape("4 ranks cannot share the 4 x 3 kept modes of a field 8 x 8: every rank needs one; the most is 3")
    ):
        plan_fourier((8, 8), (4, 4), 4)
    with pytest.raises(ModelError, match="dim 0 of the field 3 x 8 has 3 points; 4 modes are kept"):
        plan_fourier((3, 8), (4, 4), 1)
    with pytest.raises(ModelError, match="does not fit modes"):
        plan_fourier((8, 8, 8), (4, 4), 1)
    with pytest.raises(ModelError, match="at least 1 per dim"):
        plan_fourier((8, 8), (4, 0), 1)
    for grids, said in (
        (((1, 2), (2, 1)), "last dim whole"),
        (((2, 1),), "every dim"),
        (((2, 1), (1, 3)), "same number"),
        (((4, 1), (1, 4)), "finer"),
    ):
        with pytest.raises(ModelError, match=said):
            FourierPlan((8, 8), (4, 4), grids)
    with pytest.raises(ModelError, match="plan for 2 ranks cannot run on 1"):
        FourierTransform(ALONE, plan_fourier((8, 8), (4, 4), 2))
    with pytest.raises(ModelError, match=r"should give the part \[8, 8\].*got the shape \[7, 8, 1, 3\]"):
        convolution((4, 4))(torch.zeros(7, 8, 1, 3), FourierTransform(ALONE, plan_fourier((8, 8), (4, 4), 1)))
    with pytest.raises(ModelError, match="do not fit modes"):
        convolution((4, 4))(torch.zeros(8, 8, 1, 2), FourierTransform(ALONE, plan_fourier((8, 8), (4, 4), 1)))


# Many ranks.


def operators_are_adjoint(count: int, field: str) -> None:
    """The whole transform there and back, as one operator each."""
    for plan in plans(*FIELDS[field], count):
        transform = FourierTransform(group_of(count), plan)
        me = transform.group.index
        prove_dot(transform.group, transform.there, (*plan.field_boxes[me].size, 2, 1), torch.float64, 1e-12, PARTS)
        prove_dot(transform.group, transform.back, (*plan.mode_boxes[me].size, 2, 1), torch.complex128, 1e-12, PARTS)


def agrees_with_one_rank(count: int, field: str) -> None:
    """Every layout against one rank: field, both gradients, and what is sent on both ways."""
    sizes, modes = FIELDS[field]
    whole = whole_run(sizes, modes)
    group = group_of(count)
    for plan in plans(sizes, modes, count):
        conv, transform = convolution(modes, plan, count), FourierTransform(group, plan)
        mine, kept = plan.field_boxes[group.index], plan.mode_boxes[group.index]
        at = tuple(slice(a, b) for a, b in zip(mine.start, mine.stop, strict=True))
        x = whole_field(sizes, WIDTH_IN, 1)[at].requires_grad_()
        with recording() as there:
            y = conv(x, transform, lambda x=x: 3 * x[..., :WIDTH_OUT])
        with recording() as back:
            y.backward(whole_field(sizes, WIDTH_OUT, 2)[at])
        assert x.grad is not None
        assert conv.weight.grad is not None
        beside = whole_field(sizes, WIDTH_OUT, 2)[at]
        close("y", y.detach(), whole.y[at] + 3 * x.detach()[..., :WIDTH_OUT])
        dx = whole.dx[at].clone()
        dx[..., :WIDTH_OUT] += 3 * beside
        close("dx", x.grad, dx)
        inside = tuple(slice(a, b) for a, b in zip(kept.start, kept.stop, strict=True))
        close("dweight", conv.weight.grad, whole.dweight[inside])
        assert there.total("Repartition").bytes == plan.bytes_sent(group.index, BATCH, WIDTH_IN, WIDTH_OUT, 16)
        assert back.total("Repartition").bytes == plan.bytes_sent(group.index, BATCH, WIDTH_OUT, WIDTH_IN, 16)
        assert set(there.by_operator()) | set(back.by_operator()) <= {"Repartition"}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("count", RANKS)
def test_many_ranks(ranks: Ranks, count: int, field: str) -> None:
    ranks(count, operators_are_adjoint, count, field)
    ranks(count, agrees_with_one_rank, count, field)


def differentiates_twice(count: int) -> None:
    """The gradient of a gradient, against one rank; refused where a started transpose would leave it incomplete without a word."""
    sizes, modes = FIELDS["2-D, odd"]
    found = []
    for ranks, overlap in ((1, True), (count, False), (count, True)):
        plan = plan_fourier(sizes, modes, ranks)
        transform = FourierTransform(ALONE if ranks == 1 else group_of(ranks), plan, overlap=overlap)
        box, conv = transform.field_box, convolution(modes, plan, ranks)
        at = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
        x = whole_field(sizes, WIDTH_IN, 1)[at].requires_grad_()
        loss = conv(x, transform, lambda x=x: x[..., :WIDTH_OUT].sin()).pow(3).sum()
        if overlap and ranks > 1:
            with pytest.raises(ModelError, match="was started, so its gradient cannot be differentiated again"):
                torch.autograd.grad(loss, x, create_graph=True)
            continue
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    close("second gradient", found[1], found[0][at])


@pytest.mark.parametrize("count", [2, 3])
def test_second_gradients_over_ranks(ranks: Ranks, count: int) -> None:
    ranks(count, differentiates_twice, count)


def holds_each_mode_once(count: int) -> int:
    sizes, modes = FIELDS["3-D"]
    plan = plan_fourier(sizes, modes, count)
    return convolution(modes, plan, count).weight.numel()


def test_every_mode_lies_on_one_rank(ranks: Ranks) -> None:
    modes = FIELDS["3-D"][1]
    for count in RANKS:
        assert sum(ranks(count, holds_each_mode_once, count)) == prod(fourier_plan.kept_modes(modes)) * WIDTH_IN * WIDTH_OUT
