"""The Fourier neural operator (arXiv 2010.08895, blocks as in neuraloperator 2.0.0) in any number of dims, over one rank or many."""

# x the field's dims on this rank (several dims), B batch, I input channels, O output channels, C hidden channels, H hidden layer of an MLP.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import gelu

from modeling.errors import ModelError
from modeling.parallel.fourier import FourierTransform, SpectralConv
from modeling.parallel.fourier_plan import FourierPlan, plan_fourier
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.operator import Operator
from modeling.parallel.sums import Broadcast
from modeling.surrogate.config import FNOConfig


class ChannelMLP(nn.Module):
    """Two linear layers over the channels with GELU between them."""

    def __init__(self, width_in: int, hidden: int, width_out: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.first = nn.Linear(width_in, hidden, dtype=dtype)
        self.second = nn.Linear(hidden, width_out, dtype=dtype)

    def forward(self, x_xBI: Tensor, weights: "Spread") -> Tensor:
        hidden_xBH = gelu(functional.linear(x_xBI, weights(self.first.weight), weights(self.first.bias)))
        return functional.linear(hidden_xBH, weights(self.second.weight), weights(self.second.bias))


class Block(nn.Module):
    """h = GELU(spectral(x) + S x + b);  y = GELU(MLP(h) + g x), without the two GELUs in the last block."""

    def __init__(self, config: FNOConfig, last: bool, group: Group, plan: FourierPlan, dtype: torch.dtype | None) -> None:
        super().__init__()
        wide = config.hidden_channels
        self.spectral = SpectralConv(wide, wide, config.modes, group, plan.grids[-1], dtype)
        # The bias is the spectral convolution's in neuraloperator, drawn like its weights; here it joins the skip's product.
        self.skip = nn.Linear(wide, wide, dtype=dtype)
        nn.init.normal_(self.skip.bias, std=wide**-0.5)
        self.mlp = ChannelMLP(wide, config.mlp_width, wide, dtype)
        self.gate = nn.Parameter(torch.ones(wide, dtype=dtype))
        self.last = last

    def forward(self, x_xBC: Tensor, transform: FourierTransform, weights: "Spread") -> Tensor:
        skip, bias = weights(self.skip.weight), weights(self.skip.bias)
        h_xBC = self.spectral(x_xBC, transform, lambda: functional.linear(x_xBC, skip, bias))
        y_xBC = torch.addcmul(self.mlp(h_xBC if self.last else gelu(h_xBC), weights), x_xBC, weights(self.gate))
        return y_xBC if self.last else gelu(y_xBC)


class Spread:
    """The weights that every rank holds, as they are used: spread from one shared tensor to copies, all in one operator, so that their
    gradients are summed over the ranks in one call. On one rank they are the parameters themselves."""

    def __init__(self, spread: Operator, parameters: Sequence[Tensor]) -> None:
        self.used: dict[Tensor, Tensor] | None = None
        if not spread.does_nothing:
            flat = spread(torch.cat([one.reshape(-1) for one in parameters]))
            pieces = flat.split([one.numel() for one in parameters])
            self.used = {one: piece.view(one.shape) for one, piece in zip(parameters, pieces, strict=True)}

    def __call__(self, parameter: Tensor) -> Tensor:
        return parameter if self.used is None else self.used[parameter]


class FNO(nn.Module):
    """Maps a field of `in_channels` to one of `out_channels` on the same grid; time, where there is some, is the last dim.

    Over several ranks each holds the part `plan.field_boxes[rank]` of every channel and sample, the Fourier weights of its modes, and the
    small pointwise weights whole. `sizes` is the whole field's grid, over which the ranks are planned; other grids run on the same layout,
    where a rank's part is `transform(sizes).field_box`.

    group   the ranks that hold one field together; ranks that see other samples are not among them
    plan    another layout than the one of fewest bytes
    overlap whether the skips are computed beside the transposes; False where gradients are differentiated again
    """

    def __init__(
        self,
        config: FNOConfig,
        sizes: Sequence[int] | None = None,
        group: Group = ALONE,
        plan: FourierPlan | None = None,
        dtype: torch.dtype | None = None,
        overlap: bool = True,
    ) -> None:
        super().__init__()
        if sizes is None and plan is None and group.size > 1:
            raise ModelError(f"over {group.size} ranks the field's sizes must be given, e.g. sizes=({', '.join(['64'] * config.dims)})")
        self.config, self.group, self.overlap = config, group, overlap
        self.plan = plan or plan_fourier(sizes or config.modes, config.modes, group.size)
        if self.plan.modes != config.modes:
            raise ModelError(f"the plan is for modes={self.plan.modes}, the model has modes={config.modes}")
        self.spread = Broadcast(group)
        wide = config.hidden_channels
        self.lifting = ChannelMLP(config.lifted_channels, config.lifting_width, wide, dtype)
        numbers = range(config.num_layers)
        self.blocks = nn.ModuleList(Block(config, one == numbers[-1], group, self.plan, dtype) for one in numbers)
        self.projection = ChannelMLP(wide, config.projection_width, config.out_channels, dtype)
        self.transforms: dict[tuple[tuple[int, ...], str], FourierTransform] = {}
        self.grids: dict[tuple, Tensor] = {}

    def transform(self, sizes: tuple[int, ...], device: str = "cpu") -> FourierTransform:
        """The operators for a field of those sizes. On a GPU they are FFTs, since float32 products may be rounded to TF32 there."""
        if (sizes, device) not in self.transforms:
            plan = FourierPlan(sizes, self.plan.modes, self.plan.grids)
            self.transforms[sizes, device] = FourierTransform(self.group, plan, None if device == "cpu" else False, self.overlap)
        return self.transforms[sizes, device]

    def coordinates(self, transform: FourierTransform, like: Tensor) -> Tensor:
        """The points' coordinates on this rank, (x, 1, dims)."""
        key = (transform.plan.sizes, like.dtype, like.device)
        if key not in self.grids:
            lines = [torch.linspace(0, 1, size + 1, dtype=like.dtype, device=like.device)[:-1] for size in transform.plan.sizes]
            box = transform.field_box
            mine = [line[first:stop] for line, first, stop in zip(lines, box.start, box.stop, strict=True)]
            self.grids[key] = torch.stack(torch.meshgrid(*mine, indexing="ij"), -1).unsqueeze(-2)
        return self.grids[key]

    @property
    def pointwise(self) -> list[nn.Parameter]:
        """The weights that every rank holds whole."""
        return [one for name, one in self.named_parameters() if not name.endswith("spectral.weight")]

    def forward(self, field_BIx: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """The field's part on this rank, (B, O, x). `sizes` is the whole field's grid where it is not the planned one."""
        if field_BIx.ndim != self.config.dims + 2 or field_BIx.shape[1] != self.config.in_channels:
            wanted = f"(batch, {self.config.in_channels} channels, {self.config.dims} dims)"
            raise ModelError(f"the input must be {wanted}, got the shape {list(field_BIx.shape)}")
        if sizes is None:
            sizes = field_BIx.shape[2:] if self.group.size == 1 else self.plan.sizes
        transform = self.transform(tuple(sizes), field_BIx.device.type)
        weights = Spread(self.spread, [] if self.spread.does_nothing else self.pointwise)
        x_xBI = field_BIx.movedim((0, 1), (-2, -1))
        transform.check(x_xBI)
        if self.config.coordinates:
            grid = self.coordinates(transform, field_BIx)
            x_xBI = torch.cat((x_xBI, grid.expand(*x_xBI.shape[:-1], -1)), -1)
        x_xBC = self.lifting(x_xBI, weights)
        for block in self.blocks:
            x_xBC = block(x_xBC, transform, weights)
        return self.projection(x_xBC, weights).movedim((-2, -1), (0, 1))
