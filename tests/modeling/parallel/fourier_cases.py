"""Spectral convolutions of 2 to 4 dims over 1 to 4 ranks, and a reference that knows no FFT."""

# x points, k kept modes (both in one line), B batch, I channels in, O channels out.

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from modeling.parallel.fourier import FourierTransform, SpectralConv
from modeling.parallel.fourier_plan import FourierPlan, layouts, plan_fourier
from modeling.parallel.mesh import ALONE
from tests.modeling.parallel.operator_cases import group_of

# (sizes, modes): even, odd, uneven over any number of ranks, and shorter than the number of ranks.
FIELDS = {
    "2-D": ((6, 8), (4, 8)),
    "2-D, odd": ((7, 9), (5, 6)),
    "2-D, short": ((3, 9), (3, 8)),
    "3-D": ((5, 6, 7), (4, 3, 5)),
    "3-D, all modes": ((4, 5, 6), (4, 5, 6)),
    "4-D": ((3, 4, 5, 6), (2, 4, 3, 4)),
}
BATCH, WIDTH_IN, WIDTH_OUT = 2, 3, 2


@dataclass
class Run:
    """What one convolution gave: the field, and the gradients of input and weight under a random incoming one."""

    y: Tensor
    dx: Tensor
    dweight: Tensor


def signed_modes(modes: Sequence[int]) -> list[tuple[int, ...]]:
    """k of every kept mode, written out: as many below zero as above, the last dim from zero up."""
    lines = [[*range(count - count // 2), *range(-(count // 2), 0)] for count in modes[:-1]]
    return list(product(*lines, range(modes[-1] // 2 + 1)))


def dense_reference(x_xBI: Tensor, weight_kIO: Tensor, modes: Sequence[int]) -> Tensor:
    """y_x = Re sum over k of m_k exp(2 pi i k x / n) W_k^T (1/N sum over x' of exp(-2 pi i k x' / n) x_x'), with one dense matrix over all
    points and modes; m_k = 2 where the last dim's mode has a mirror image."""
    sizes = x_xBI.shape[:-2]
    points = torch.tensor(list(product(*map(range, sizes))), dtype=torch.float64)
    kept = torch.tensor(signed_modes(modes), dtype=torch.float64)
    phase_xk = torch.exp(2j * torch.pi * ((points / torch.tensor(sizes)) @ kept.T))
    mirror_k = torch.where((kept[:, -1] == 0) | (2 * kept[:, -1] == sizes[-1]), 1.0, 2.0)
    x_xBI, weight_kIO = x_xBI.flatten(0, len(sizes) - 1), weight_kIO.flatten(0, len(sizes) - 1)
    modes_kBI = torch.einsum("xk,xbi->kbi", phase_xk.conj() / len(points), x_xBI.to(phase_xk.dtype))
    y_xBO = torch.einsum("k,xk,kbi,kio->xbo", mirror_k.to(phase_xk.dtype), phase_xk, modes_kBI, weight_kIO)
    return y_xBO.real.view(*sizes, *y_xBO.shape[1:])


def whole_field(sizes: Sequence[int], channels: int, seed: int) -> Tensor:
    return torch.randn(*sizes, BATCH, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolution(modes: Sequence[int], plan: FourierPlan | None = None, count: int = 1) -> SpectralConv:
    """The same weights over any ranks."""
    torch.manual_seed(7)
    group = ALONE if count == 1 else group_of(count)
    return SpectralConv(WIDTH_IN, WIDTH_OUT, modes, group, plan.grids[-1] if plan else None, torch.float64)


def whole_run(sizes: tuple[int, ...], modes: tuple[int, ...]) -> Run:
    """One rank, by FFT."""
    conv = convolution(modes)
    x = whole_field(sizes, WIDTH_IN, 1).requires_grad_()
    y = conv(x, FourierTransform(ALONE, plan_fourier(sizes, modes, 1), by_product=False))
    y.backward(whole_field(sizes, WIDTH_OUT, 2))
    assert x.grad is not None
    assert conv.weight.grad is not None
    return Run(y.detach(), x.grad, conv.weight.grad)


def plans(sizes: tuple[int, ...], modes: tuple[int, ...], count: int) -> list[FourierPlan]:
    """The planned layout, and others: of every number of stages and cut dims one, the last that there is."""
    chosen = plan_fourier(sizes, modes, count)
    found = {(len(grids), tuple(parts > 1 for parts in grids[0])): grids for grids in layouts(sizes, chosen.kept, count)}
    return [chosen, *(FourierPlan(sizes, modes, grids) for grids in found.values() if grids != chosen.grids)]
