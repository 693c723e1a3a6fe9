"""The proofs of an operator, run on every rank: its matrix and that of its adjoint, inner products, and bits where bits must not change."""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modeling.parallel.mesh import Group
from modeling.parallel.operator import Operator
from modeling.parallel.space import Kind

Shape = tuple[int, ...]


def everyone(group: Group, mine: Any) -> list[Any]:
    """What each member has, on every member, in their order."""
    if group.size == 1:
        return [mine]
    found: list[Any] = [None] * group.size
    dist.all_gather_object(found, mine, group=group.process_group)
    order = sorted(range(group.size), key=lambda j: group.ranks[j])
    placed: list[Any] = [None] * group.size
    for j, one in zip(order, found, strict=True):
        placed[j] = one
    return placed


def real(x: Tensor) -> Tensor:
    """Coordinates over the real numbers, in one line."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(-1)


def basis(shape: Shape, dtype: torch.dtype, number: int | None) -> Tensor:
    """The unit vector of that number among the real coordinates of a tensor, or zero."""
    x = torch.zeros(shape, dtype=dtype)
    if number is not None:
        real(x)[number] = 1.0
    return x


def width(shape: Shape, dtype: torch.dtype) -> int:
    return math.prod(shape) * (2 if dtype.is_complex else 1)


def matrix(group: Group, operator: Operator, kinds: tuple[Kind, Kind], shape: Shape, dtype: torch.dtype) -> Tensor:
    """The operator column by column over all ranks' coordinates; a shared tensor's coordinates count once.

    `kinds` are those of what goes in and comes out, `shape` and `dtype` what this rank gives. Ranks may have none.
    """
    widths = [width(one, dtype) for one in everyone(group, shape)]
    owners = range(1) if kinds[0] is Kind.SHARED else range(group.size)
    units = [(owner, number) for owner in owners for number in range(widths[owner])]
    mine = [
        real(operator(basis(shape, dtype, number if kinds[0] is Kind.SHARED or owner == group.index else None))) for owner, number in units
    ]
    height = real(operator(basis(shape, dtype, None))).numel()
    parts = everyone(group, torch.stack(mine, 1).clone() if mine else torch.zeros(height, 0))
    if kinds[1] is Kind.SHARED:
        assert all(torch.equal(part, parts[0]) for part in parts), "a shared result differs between ranks"
        parts = parts[:1]
    return torch.cat(parts)


def inner(group: Group, kind: Kind, x: Tensor, y: Tensor) -> float:
    """Re <x, y> over all ranks, summed without rounding on the way; a shared tensor counts once."""
    a, b = real(x).double(), real(y).double()
    terms = (a * b).tolist()
    if kind is Kind.SHARED:
        return math.fsum(terms)
    return math.fsum(term for part in everyone(group, terms) for term in part)


def norm(group: Group, kind: Kind, x: Tensor) -> float:
    return math.sqrt(inner(group, kind, x, x))


def random_like(group: Group, kind: Kind, shape: Shape, dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers that differ between ranks, but for a shared tensor."""
    generator = torch.Generator().manual_seed(1000 * seed + (0 if kind is Kind.SHARED else 1 + group.index))
    return torch.randn(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64, generator=generator).to(dtype)


def prove_matrix(
    group: Group,
    operator: Operator,
    shape: Shape,
    dtype: torch.dtype = torch.float64,
    kinds: tuple[Kind, Kind] | None = None,
    bound: float = 0.0,
) -> None:
    """The adjoint's matrix is the operator's, transposed: exactly for moves, to `bound` for sums and transforms. Autograd gives it too."""
    kinds = (operator.domain.kind, operator.range.kind) if kinds is None else kinds
    x = random_like(group, kinds[0], shape, dtype, 1).requires_grad_()
    y = operator(x)
    there = matrix(group, operator, kinds, shape, dtype)
    back = matrix(group, operator.adjoint, (kinds[1], kinds[0]), tuple(y.shape), y.dtype)
    assert there.shape == back.T.shape, f"{tuple(there.shape)} there, {tuple(back.shape)} back"
    worst = (there - back.T).abs().max().item() if there.numel() else 0.0
    assert worst <= bound, f"F and F* transposed differ by {worst}"
    dy = random_like(group, kinds[1], tuple(y.shape), y.dtype, 2)
    expected = operator.adjoint(dy).to(x.dtype)
    # Called, and started with a use of the argument before it is finished.
    started = operator.start(x)
    beside = 2 * x
    for way, result in (("called", y), ("started", started.finish())):
        torch.testing.assert_close(result.detach(), y.detach(), rtol=0, atol=0, msg=f"{way}: another result")
        (gradient,) = torch.autograd.grad(result, x, dy, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=0, msg=lambda text, way=way: f"{way}: {text}")
    torch.testing.assert_close(torch.autograd.grad(beside, x, x.detach())[0], 2 * x.detach(), rtol=0, atol=0)


def prove_dot(
    group: Group, operator: Operator, shape: Shape, dtype: torch.dtype, bound: float, kinds: tuple[Kind, Kind] | None = None
) -> None:
    """|<F x, y> - <x, F* y>| <= bound * max(|F x| |y|, |x| |F* y|), and F changes neither x nor y."""
    kinds = (operator.domain.kind, operator.range.kind) if kinds is None else kinds
    x = random_like(group, kinds[0], shape, dtype, 3)
    kept = x.clone()
    fx = operator(x)
    y = random_like(group, kinds[1], tuple(fx.shape), fx.dtype, 4)
    y_kept = y.clone()
    adjoint_y = operator.adjoint(y)
    assert torch.equal(x, kept), "the argument was changed"
    assert torch.equal(y, y_kept), "the adjoint's argument was changed"
    left, right = inner(group, kinds[1], fx, y), inner(group, kinds[0], x, adjoint_y)
    size = max(norm(group, kinds[1], fx) * norm(group, kinds[1], y), norm(group, kinds[0], x) * norm(group, kinds[0], adjoint_y), 1e-300)
    assert abs(left - right) <= bound * size, f"<Fx, y> = {left!r} and <x, F*y> = {right!r} differ by {abs(left - right) / size:.2g}"
