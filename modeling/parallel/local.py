"""Linear operators that send nothing: discrete Fourier transforms, low modes of a spectrum, chosen rows. Each with its adjoint."""

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.mesh import ALONE
from modeling.parallel.operator import Operator, Wait, done
from modeling.parallel.space import Kind, Space


class Local(Operator):
    """Acts on what a rank holds, whatever it is part of; in a chain its space is that of its neighbours."""

    domain = range = Space(ALONE, Kind.PARTS)
    local = True

    def compute(self, x: Tensor) -> Tensor:
        """F x."""
        raise NotImplementedError(f"{type(self).__name__} must say what it computes")

    def launch(self, x: Tensor) -> Wait:
        return done(self.compute(x))


class DFT(Local):
    """y_k = sum over t of x_t exp(-2 pi i k t / n) along `dim` of complex x; F* = n ifft."""

    name = "DFT"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def compute(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, dim=self.dim) if x.numel() else x

    @property
    def adjoint(self) -> Operator:
        return AdjointDFT(self.dim)


class AdjointDFT(Local):
    """F* y = n ifft(y): the sum with the other sign, without a factor."""

    name = "DFT*"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def compute(self, x: Tensor) -> Tensor:
        return torch.fft.ifft(x, dim=self.dim, norm="forward") if x.numel() else x

    @property
    def adjoint(self) -> Operator:
        return DFT(self.dim)


class InverseDFT(Local):
    """x_t = 1/n sum over k of y_k exp(2 pi i k t / n); its adjoint is fft / n."""

    name = "InverseDFT"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def compute(self, x: Tensor) -> Tensor:
        return torch.fft.ifft(x, dim=self.dim) if x.numel() else x

    @property
    def adjoint(self) -> Operator:
        return AdjointInverseDFT(self.dim)


class AdjointInverseDFT(Local):
    """fft / n."""

    name = "InverseDFT*"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def compute(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, dim=self.dim, norm="forward") if x.numel() else x

    @property
    def adjoint(self) -> Operator:
        return InverseDFT(self.dim)


class RFFT(Local):
    """The n // 2 + 1 coefficients of a real signal of length n along `dim` that say all of it."""

    name = "RFFT"

    def __init__(self, dim: int, length: int) -> None:
        self.dim, self.length = dim, length

    def compute(self, x: Tensor) -> Tensor:
        check_length(self.name, x, self.dim, self.length)
        return real_transform(x, self.dim)

    @property
    def adjoint(self) -> Operator:
        return AdjointRFFT(self.dim, self.length)


class AdjointRFFT(Local):
    """x_t = Re sum over k of y_k exp(2 pi i k t / n), over the coefficients that are kept: n irfft(c y) with c = 1/2, but 1 where irfft
    counts a coefficient once, at k = 0 and, for even n, at k = n / 2.
    """

    name = "RFFT*"

    def __init__(self, dim: int, length: int) -> None:
        self.dim, self.length = dim, length

    def compute(self, x: Tensor) -> Tensor:
        return real_signal(x * half_weights(x, self.dim, self.length), self.dim, self.length, norm="forward")

    @property
    def adjoint(self) -> Operator:
        return RFFT(self.dim, self.length)


class InverseRFFT(Local):
    """The real signal of length n whose coefficients are given. The length must be said: n // 2 + 1 coefficients fit an odd n too."""

    name = "InverseRFFT"

    def __init__(self, dim: int, length: int) -> None:
        self.dim, self.length = dim, length

    def compute(self, x: Tensor) -> Tensor:
        check_length(self.name, x, self.dim, self.length // 2 + 1)
        return real_signal(x, self.dim, self.length)

    @property
    def adjoint(self) -> Operator:
        return AdjointInverseRFFT(self.dim, self.length)


class AdjointInverseRFFT(Local):
    """rfft(x) / (n c), with c as in `AdjointRFFT`."""

    name = "InverseRFFT*"

    def __init__(self, dim: int, length: int) -> None:
        self.dim, self.length = dim, length

    def compute(self, x: Tensor) -> Tensor:
        y = real_transform(x, self.dim, norm="forward")
        return y / half_weights(y, self.dim, self.length)

    @property
    def adjoint(self) -> Operator:
        return InverseRFFT(self.dim, self.length)


class Restrict(Local):
    """The first `low` and the last `high` indices of `length` along `dim`: the modes nearest to zero of a spectrum. Adjoint: `ZeroPad`."""

    name = "Restrict"

    def __init__(self, dim: int, length: int, low: int, high: int = 0) -> None:
        if low < 0 or high < 0 or low + high > length:
            raise ModelError(f"Restrict: {low} first and {high} last of {length} indices cannot be kept")
        self.dim, self.length, self.low, self.high = dim, length, low, high
        self.does_nothing = low + high == length

    def compute(self, x: Tensor) -> Tensor:
        if self.does_nothing:
            return x
        check_length(self.name, x, self.dim, self.length)
        first = x.narrow(self.dim, 0, self.low)
        if not self.high:
            return first
        return torch.cat((first, x.narrow(self.dim, self.length - self.high, self.high)), self.dim)

    @property
    def adjoint(self) -> Operator:
        return ZeroPad(self.dim, self.length, self.low, self.high)


class ZeroPad(Local):
    """Modes back to their places, zeros between them."""

    name = "ZeroPad"

    def __init__(self, dim: int, length: int, low: int, high: int = 0) -> None:
        self.dim, self.length, self.low, self.high = dim, length, low, high
        self.does_nothing = low + high == length

    def compute(self, x: Tensor) -> Tensor:
        if self.does_nothing:
            return x
        check_length(self.name, x, self.dim, self.low + self.high)
        shape = list(x.shape)
        shape[self.dim] = self.length
        y = x.new_zeros(shape)
        y.narrow(self.dim, 0, self.low).copy_(x.narrow(self.dim, 0, self.low))
        y.narrow(self.dim, self.length - self.high, self.high).copy_(x.narrow(self.dim, self.low, self.high))
        return y

    @property
    def adjoint(self) -> Operator:
        return Restrict(self.dim, self.length, self.low, self.high)


class Select(Local):
    """Rows of a matrix (V, ...) by number, (..., D); -1 gives zeros, as a rank needs for rows that another rank holds. Adjoint:
    `ScatterAdd`.
    """

    name = "Select"

    def __init__(self, rows: Tensor, num_rows: int) -> None:
        self.rows, self.num_rows = rows, num_rows

    def compute(self, x: Tensor) -> Tensor:
        if self.num_rows == 0:
            return x.new_zeros((*self.rows.shape, *x.shape[1:]))
        rows = self.rows.to(x.device)
        found = x[rows.clamp(min=0)]
        missing = (rows < 0).view(*rows.shape, *[1] * (x.ndim - 1))
        return found.masked_fill(missing, 0)

    @property
    def adjoint(self) -> Operator:
        return ScatterAdd(self.rows, self.num_rows)


class ScatterAdd(Local):
    """Every row added to the one it came from; those of -1 are dropped."""

    name = "ScatterAdd"

    def __init__(self, rows: Tensor, num_rows: int) -> None:
        self.rows, self.num_rows = rows, num_rows

    def compute(self, x: Tensor) -> Tensor:
        y = x.new_zeros((self.num_rows + 1, *x.shape[self.rows.ndim :]))
        # Row -1 is the one too many at the end.
        rows = self.rows.to(x.device)
        places = torch.where(rows < 0, self.num_rows, rows).flatten()
        return y.index_add_(0, places, x.flatten(0, self.rows.ndim - 1))[: self.num_rows]

    @property
    def adjoint(self) -> Operator:
        return Select(self.rows, self.num_rows)


def real_transform(x: Tensor, dim: int, norm: str = "backward") -> Tensor:
    """rfft, also of parts without elements, which the kernels refuse."""
    if x.numel():
        return torch.fft.rfft(x, dim=dim, norm=norm)
    shape = list(x.shape)
    shape[dim] = shape[dim] // 2 + 1
    return x.new_zeros(shape, dtype=x.dtype.to_complex())


def real_signal(x: Tensor, dim: int, length: int, norm: str = "backward") -> Tensor:
    """irfft, also of parts without elements."""
    if x.numel():
        return torch.fft.irfft(x, n=length, dim=dim, norm=norm)
    shape = list(x.shape)
    shape[dim] = length
    return x.real.new_zeros(shape)


def half_weights(like: Tensor, dim: int, length: int) -> Tensor:
    """c_k of a real transform of that length, shaped to multiply along `dim`: 1 at k = 0 and k = length / 2, else 1/2."""
    weights = torch.full((length // 2 + 1,), 0.5, dtype=like.real.dtype, device=like.device)
    weights[0] = 1.0
    if length % 2 == 0:
        weights[-1] = 1.0
    return weights.view([-1 if axis == dim % like.ndim else 1 for axis in range(like.ndim)])


def check_length(name: str, x: Tensor, dim: int, length: int) -> None:
    """Refuses another length along the dim."""
    if x.shape[dim] != length:
        raise ModelError(f"{name}: dim {dim} should have the length {length}, got the shape {list(x.shape)}")
