"""Errors of predicted fields, relative to the true ones: in L2, and in H1, which counts slopes as well."""

# B batch, C channels, x points of all dims.

from functools import cache

import torch
from torch import Tensor

from modeling.errors import ModelError


def relative_l2(y_BCx: Tensor, target_BCx: Tensor) -> Tensor:
    """|y - target| / |target| over the points, per sample and channel: (B, C)."""
    check_shapes(y_BCx, target_BCx)
    return (y_BCx - target_BCx).flatten(2).norm(dim=-1) / (target_BCx.flatten(2).norm(dim=-1) + EPSILON)


def relative_h1(y_BCx: Tensor, target_BCx: Tensor) -> Tensor:
    """The same in H1 on the unit cube: |u|^2 + sum over dims of |du/dx|^2, slopes by central differences round the ends: (B, C).

    neuraloperator's H1Loss with its defaults, for any number of dims.
    """
    check_shapes(y_BCx, target_BCx)
    return (h1_square(y_BCx - target_BCx).sqrt()) / (h1_square(target_BCx).sqrt() + EPSILON)


def h1_square(u_BCx: Tensor) -> Tensor:
    """The sum of squares of the field and of its slopes, (B, C)."""
    total = u_BCx.flatten(2).square().sum(-1)
    for dim in range(2, u_BCx.ndim):
        n = u_BCx.shape[dim]
        before, behind = neighbours(n, u_BCx.device)
        slope = (u_BCx.index_select(dim, behind) - u_BCx.index_select(dim, before)) * (n / 2)
        total = total + slope.flatten(2).square().sum(-1)
    return total


@cache
def neighbours(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every point the one before it and the one behind it, round the ends."""
    points = torch.arange(length, device=device)
    return points.roll(1), points.roll(-1)


def check_shapes(y_BCx: Tensor, target_BCx: Tensor) -> None:
    """Refuses fields that would be broadcast against each other."""
    if y_BCx.shape != target_BCx.shape or y_BCx.ndim < 3:
        raise ModelError(
            f"fields (batch, channels, points ...) of one shape are needed, got {list(y_BCx.shape)} and {list(target_BCx.shape)}"
        )


EPSILON = 1e-8  # keeps a field that is zero everywhere from dividing by zero
