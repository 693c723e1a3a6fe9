"""The truncated Fourier transform of a field over ranks, and the spectral convolution: local transforms and Repartitions in a chain.

    there   A_k T_(k-1) ... T_0 A_0   A_s: transform and truncation of the dims that are whole in stage s; T_s: the transpose between stages
    back    the same in reverse, with the adjoint of every T and the inverse of every A

Which dims are whole when, and so what is sent, says `FourierPlan`. Autograd follows from the operators. Tensors carry their space dims
first, then batch and channels: a rank's kept modes are a batch of small matrix products, and every pointwise layer is one product.
"""

# x the field's dims on this rank, k the kept modes on this rank (both are several dims), B batch, I channels in, O channels out.

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from modeling.errors import ModelError
from modeling.parallel.fourier_plan import FourierPlan, Grid, kept_modes
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.moves import repartition
from modeling.parallel.operator import Chain, Operator
from modeling.parallel.partition import Box, grid_tiles
from modeling.parallel.pieces import Pieces
from modeling.parallel.transforms import Kept, analysis, synthesis


class FourierTransform:
    """The operators of one plan on one group of ranks.

    by_product   matrix products or FFTs, whatever the dims' lengths
    overlap      whether local work goes on beside the first transpose; then its gradient cannot be differentiated again
    """

    def __init__(self, group: Group, plan: FourierPlan, by_product: bool | None = None, overlap: bool = True) -> None:
        if group.size != plan.ranks:
            raise ModelError(f"a plan for {plan.ranks} ranks cannot run on {group.size}")
        self.group, self.plan, self.by_product, self.overlap = group, plan, by_product, overlap

    def kept(self, dim: int) -> Kept:
        """What is kept along a dim, in the order of `Restrict`: as many modes below zero as above, one more above where they are odd."""
        last, count = dim == len(self.plan.sizes) - 1, self.plan.kept[dim]
        return Kept(self.plan.sizes[dim], *((count, 0) if last else (count - count // 2, count // 2)), real=last)

    @cached_property
    def forwards(self) -> list[Operator]:
        """A_s of every stage."""
        return [Chain([analysis(dim, self.kept(dim), self.by_product) for dim in dims]) for dims in self.plan.turned]

    @cached_property
    def inverses(self) -> list[Operator]:
        """The inverse of A_s of every stage, its dims in reverse."""
        return [Chain([synthesis(dim, self.kept(dim), self.by_product) for dim in reversed(dims)]) for dims in self.plan.turned]

    @cached_property
    def moves(self) -> list[Operator]:
        """T_s of every transpose."""
        plan = self.plan
        lengths = [plan.lengths(stage) for stage in range(len(plan.grids))]
        return [
            repartition(self.group, grid_tiles(lengths[stage], plan.grids[stage]), grid_tiles(lengths[stage], plan.grids[stage + 1]))
            for stage in range(len(plan.grids) - 1)
        ]

    @cached_property
    def rest(self) -> Operator | None:
        """What follows the first transpose on the way there."""
        if not self.moves:
            return None
        steps = [self.forwards[1]]
        for move, forward in zip(self.moves[1:], self.forwards[2:], strict=True):
            steps += [move, forward]
        return Chain(steps)

    @cached_property
    def there(self) -> Operator:
        """The field's part to the part of the kept modes."""
        return Chain([self.forwards[0], *([self.moves[0], self.rest] if self.rest else [])])

    @cached_property
    def back(self) -> Operator:
        """The part of the kept modes to the field's part."""
        steps = [self.inverses[-1]]
        for move, inverse in zip(reversed(self.moves), reversed(self.inverses[:-1]), strict=True):
            steps += [move.adjoint, inverse]
        return Chain(steps)

    @property
    def field_box(self) -> Box:
        """This rank's part of the field."""
        return self.plan.field_boxes[self.group.index]

    def check(self, x_xBI: Tensor) -> None:
        """Refuses what is not this rank's part."""
        if tuple(x_xBI.shape[:-2]) != self.field_box.size:
            raise ModelError(
                f"member {self.group.index} should give the part {list(self.field_box.size)} of a field {list(self.plan.sizes)}, "
                f"got the shape {list(x_xBI.shape)} with batch and channels last"
            )


class SpectralConv(nn.Module):
    """y = F⁻¹ W F x with a complex matrix W_k per kept mode (arXiv 2010.08895), each on the one rank that holds the mode.

    x_xBI   this rank's part of the field  ->  y_xBO   the same part
    dx, dW  by the adjoints of the operators; dW_k = conj(x̂_k)ᵀ dŷ_k is local

    `grid` is the last one of the plan: how the modes lie over the ranks, at any size of the field.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        group: Group = ALONE,
        grid: Grid | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kept = kept_modes(modes)
        tiles = grid_tiles(kept, grid or (1,) * len(kept))
        if len(tiles) != group.size:
            raise ModelError(f"the grid {grid} is for {len(tiles)} ranks, not {group.size}")
        mine = tiles[group.index]
        channels = (in_channels, out_channels)
        self.pieces = {"weight": Pieces((*kept, *channels), (Box((*mine.start, 0, 0), (*mine.size, *channels)),))}
        self.weight = nn.Parameter(torch.empty(*mine.size, *channels, dtype=(dtype or torch.get_default_dtype()).to_complex()))
        self.initialise()

    @torch.no_grad()
    def initialise(self, std: float | None = None) -> None:
        """Complex normal numbers of variance 2 / (in + out), neuraloperator's rule, or of `std`; the same ones over any number of ranks."""
        shape, mine = self.pieces["weight"].shape, self.pieces["weight"].boxes[0]
        size = float((2 / (shape[-2] + shape[-1])) ** 0.5) if std is None else std
        inside = tuple(slice(first, stop) for first, stop in zip(mine.start[1:], mine.stop[1:], strict=True))
        for row in range(shape[0]):
            # Every rank draws every number, but a row at a time, so that none holds the whole weight; in float32 for every dtype.
            drawn = torch.randn(shape[1:], dtype=torch.complex64) * size
            if mine.start[0] <= row < mine.stop[0]:
                self.weight[row - mine.start[0]] = drawn[inside].to(self.weight.dtype)

    def forward(self, x_xBI: Tensor, transform: FourierTransform, beside: Callable[[], Tensor] | None = None) -> Tensor:
        """y_xBO, plus what `beside` gives, which is computed while the first transpose is under way."""
        transform.check(x_xBI)
        if transform.rest is None or not transform.overlap:
            modes_kBI = transform.there(x_xBI)
            other_xBO = beside() if beside else None
        else:
            moving = transform.moves[0].start(transform.forwards[0](x_xBI))
            other_xBO = beside() if beside else None
            modes_kBI = transform.rest(moving.finish())
        y_xBO = transform.back(contract(modes_kBI, self.weight))
        return y_xBO if other_xBO is None else y_xBO + other_xBO


def contract(x_kBI: Tensor, weight_kIO: Tensor) -> Tensor:
    """Each mode's vectors times its matrix."""
    modes, (batch, channels) = x_kBI.shape[:-2], x_kBI.shape[-2:]
    if tuple(weight_kIO.shape[:-1]) != (*modes, channels):
        raise ModelError(f"weights {list(weight_kIO.shape)} do not fit modes {list(modes)} of {channels} channels")
    y_kBO = torch.bmm(x_kBI.reshape(prod(modes), batch, channels), weight_kIO.reshape(prod(modes), *weight_kIO.shape[-2:]))
    return y_kBO.view(*modes, batch, -1) if y_kBO.numel() else y_kBO.new_zeros(*modes, batch, weight_kIO.shape[-1])
