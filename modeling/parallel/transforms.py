"""Truncated Fourier transforms along one dim: local operators, by FFT for long dims and as one small matrix product for short ones.

    analysis    c_k = 1/n sum over t of x_t exp(-2 pi i k t / n), for the modes k that are kept
    synthesis   x_t = sum over the kept k of c_k exp(2 pi i k t / n), for a real field with every mode's mirror image (-k, conjugate) added

A real dim keeps k = 0 .. low - 1. A complex dim keeps 0 .. low - 1 and then -high .. -1, in that order, as `Restrict` cuts them. With all
modes kept synthesis is the inverse of analysis, for even and odd n.
"""

# L dims before, n points, K kept modes, R dims behind, p real and imaginary part.

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.local import DFT, RFFT, AdjointDFT, AdjointRFFT, Local, Restrict, ZeroPad, check_length
from modeling.parallel.operator import Chain, Operator

# Up to so many points times modes a matrix product takes no longer than an FFT that computes all modes and strides over the dims behind
# (measured in float32 on one core with AVX-512: equal at 128 points and 32 modes).
PRODUCT_LIMIT = 2048


@dataclass(frozen=True)
class Kept:
    """Which modes of a dim of `length` points are kept, and whether the field is still real along it."""

    length: int
    low: int
    high: int
    real: bool

    def __post_init__(self) -> None:
        modes = self.length // 2 + 1 if self.real else self.length
        if self.low < 1 or self.high < 0 or self.low + self.high > modes:
            raise ModelError(f"{self.low} low and {self.high} high modes cannot be kept: a dim of {self.length} points has {modes}")

    @property
    def count(self) -> int:
        return self.low + self.high

    @property
    def frequencies(self) -> tuple[int, ...]:
        """k of every kept mode, in order."""
        return (*range(self.low), *range(-self.high, 0))

    @property
    def mirror_weights(self) -> tuple[float, ...]:
        """2 where a real field has the mode's mirror image as well, 1 at k = 0 and k = n / 2; all 1 along a complex dim."""
        if not self.real:
            return (1.0,) * self.count
        return tuple(1.0 if k == 0 or 2 * k == self.length else 2.0 for k in self.frequencies)


def analysis(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """The field along `dim` to its kept modes."""
    weights = (1 / kept.length,) * kept.count
    if use_product(kept, by_product):
        return Product(dim, kept, weights)
    first, modes = (RFFT(dim, kept.length), kept.length // 2 + 1) if kept.real else (DFT(dim), kept.length)
    return Chain([first, Restrict(dim, modes, kept.low, kept.high), Scale(dim, weights)])


def synthesis(dim: int, kept: Kept, by_product: bool | None = None) -> Operator:
    """Kept modes back to the field along `dim`."""
    if use_product(kept, by_product):
        return AdjointProduct(dim, kept, kept.mirror_weights)
    last, modes = (AdjointRFFT(dim, kept.length), kept.length // 2 + 1) if kept.real else (AdjointDFT(dim), kept.length)
    return Chain([Scale(dim, kept.mirror_weights), ZeroPad(dim, modes, kept.low, kept.high), last])


def use_product(kept: Kept, asked: bool | None) -> bool:
    return kept.length * kept.count <= PRODUCT_LIMIT if asked is None else asked


class Scale(Local):
    """y_k = w_k x_k along `dim`, with real weights: its own adjoint."""

    name = "Scale"

    def __init__(self, dim: int, weights: tuple[float, ...]) -> None:
        self.dim, self.weights = dim, weights

    def compute(self, x: Tensor) -> Tensor:
        check_length(self.name, x, self.dim, len(self.weights))
        if len(set(self.weights)) == 1:
            return x if self.weights[0] == 1.0 else x * self.weights[0]
        weights = torch.tensor(self.weights, dtype=x.dtype.to_real(), device=x.device)
        return x * weights.view([-1 if axis == self.dim % x.ndim else 1 for axis in range(x.ndim)])

    @property
    def adjoint(self) -> Operator:
        return self


class Product(Local):
    """c_k = w_k sum over t of x_t exp(-2 pi i k t / n) along `dim` for the kept modes, as a product with a matrix (K, n)."""

    name = "Product"

    def __init__(self, dim: int, kept: Kept, weights: tuple[float, ...]) -> None:
        self.dim, self.kept, self.weights = dim, kept, weights

    def compute(self, x: Tensor) -> Tensor:
        check_length(self.name, x, self.dim, self.kept.length)
        dim = self.dim % x.ndim
        before, behind = x.shape[:dim], x.shape[dim + 1 :]
        x_LnR = x.reshape(math.prod(before), self.kept.length, math.prod(behind))
        matrix = dft_matrix(self.kept, self.weights, x.dtype.to_complex(), x.device)
        if self.kept.real:
            y_LKpR = batched(real_rows(matrix), x_LnR).unflatten(1, (self.kept.count, 2))
            y_LKR = torch.complex(y_LKpR[:, :, 0], y_LKpR[:, :, 1])
        else:
            y_LKR = batched(matrix, x_LnR)
        return y_LKR.view(*before, self.kept.count, *behind)

    @property
    def adjoint(self) -> Operator:
        return AdjointProduct(self.dim, self.kept, self.weights)


class AdjointProduct(Local):
    """x_t = sum over the kept k of w_k c_k exp(2 pi i k t / n) along `dim`, its real part where the field is real."""

    name = "Product*"

    def __init__(self, dim: int, kept: Kept, weights: tuple[float, ...]) -> None:
        self.dim, self.kept, self.weights = dim, kept, weights

    def compute(self, x: Tensor) -> Tensor:
        check_length(self.name, x, self.dim, self.kept.count)
        dim = self.dim % x.ndim
        before, behind = x.shape[:dim], x.shape[dim + 1 :]
        x_LKR = x.reshape(math.prod(before), self.kept.count, math.prod(behind))
        matrix = dft_matrix(self.kept, self.weights, x.dtype, x.device)
        if self.kept.real:
            # Re(conj(m) c) = Re m Re c + Im m Im c: one real product over modes and parts together.
            parts_LKpR = torch.view_as_real(x_LKR.resolve_conj()).movedim(-1, 2)
            y_LnR = batched(real_rows(matrix).T, parts_LKpR.flatten(1, 2))
        else:
            y_LnR = batched(adjoint_matrix(self.kept, self.weights, x.dtype, x.device), x_LKR)
        return y_LnR.view(*before, self.kept.length, *behind)

    @property
    def adjoint(self) -> Operator:
        return Product(self.dim, self.kept, self.weights)


def batched(matrix: Tensor, x_LmR: Tensor) -> Tensor:
    """The matrix times every one of L blocks."""
    return torch.bmm(matrix.expand(x_LmR.shape[0], *matrix.shape), x_LmR)


@cache
def dft_matrix(kept: Kept, weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """w_k exp(-2 pi i k t / n), shape (K, n). Angles are reduced as integers first, so that they are exact for any n."""
    turns_Kn = torch.outer(torch.tensor(kept.frequencies), torch.arange(kept.length)) % kept.length
    scale_K = torch.tensor(weights, dtype=torch.float64)
    return (scale_K[:, None] * torch.exp(turns_Kn.double() * (-2j * math.pi / kept.length))).to(device, dtype)


@cache
def adjoint_matrix(kept: Kept, weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The conjugate transpose, (n, K), written out once."""
    return dft_matrix(kept, weights, dtype, device).mH.contiguous().resolve_conj()


def real_rows(matrix_Kn: Tensor) -> Tensor:
    """The complex matrix as (K p, n) real rows, the real and the imaginary part of each."""
    return torch.view_as_real(matrix_Kn).movedim(-1, 1).flatten(0, 1)
