"""Nearest and linear upsampling in 1 to 3 dims over ranks that hold parts of the field, by indices of the whole field."""

# B batch, C channels of this rank, S and s spatial dims of input and output; o outputs of this rank along one dim.

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.field import Field
from modeling.parallel.field_windows import check_field
from modeling.parallel.moves import halo
from modeling.parallel.window import blocks, halo_widths

Mode = Literal["nearest", "linear"]
MODES = {"nearest": ("nearest",) * 3, "linear": ("linear", "bilinear", "trilinear")}


class ParallelUpsample(nn.Module):
    """torch's interpolate to `size`: x_BCS the rank's points -> y_BCs balanced blocks of the outputs' points (`output`).

    Every output comes from one or two inputs per dim, counted in the whole field, so that parts meet without a seam. Sizes may shrink too.
    Channels are as they come.

    mode            "nearest", or "linear", which is bilinear in 2 dims and trilinear in 3
    align_corners   for "linear": whether the ends of input and output are the same points, or, by default, the cells' outer borders
    """

    def __init__(self, size: Sequence[int], field: Field, mode: Mode = "nearest", align_corners: bool = False) -> None:
        super().__init__()
        if mode not in MODES:
            raise ModelError(f"no upsampling {mode!r}; there is {', '.join(MODES)}")
        if len(size) != field.dims:
            raise ModelError(f"an upsampled field of {field.dims} spatial dims needs as many sizes, got {tuple(size)}")
        self.field, self.output, self.mode, self.align_corners = field, field.resized(size), mode, align_corners
        self.alone = all(group.size == 1 for group in field.groups)
        taps = [sources(length, out, mode, align_corners) for length, out in zip(field.size, size, strict=True)]
        wanted = [
            [range(int(low_o[out.start]), int(high_o[out.stop - 1]) + 1) if out else range(0) for out in blocks(outs)]
            for (low_o, high_o, _), outs in zip(taps, self.output.lengths, strict=True)
        ]
        widths = [halo_widths(ins, wants) for ins, wants in zip(field.lengths, wanted, strict=True)]
        self.enter = halo(field.groups, [2 + dim for dim in range(field.dims)], field.lengths, widths)
        for dim, (low_o, high_o, share_o) in enumerate(taps):
            mine = slice(self.output.box.start[dim], self.output.box.stop[dim])
            first = wanted[dim][field.groups[dim].index].start
            for name, one in (("low", low_o[mine] - first), ("high", high_o[mine] - first), ("share", share_o[mine])):
                self.register_buffer(f"{name}_{dim}", one, persistent=False)

    def forward(self, x_BCS: Tensor) -> Tensor:
        check_field(x_BCS, self.field, None, "this upsampling")
        if self.alone:
            return functional.interpolate(
                x_BCS,
                self.output.size,
                mode=MODES[self.mode][self.field.dims - 1],
                align_corners=self.align_corners if self.mode == "linear" else None,
            )
        y = self.enter(x_BCS)
        for dim in range(self.field.dims):
            low_o, high_o, share_o = (self.get_buffer(f"{name}_{dim}") for name in ("low", "high", "share"))
            low = y.index_select(2 + dim, low_o)
            if self.mode == "linear":
                shape = [-1 if axis == dim else 1 for axis in range(self.field.dims)]
                low = torch.lerp(low, y.index_select(2 + dim, high_o), share_o.to(y.dtype).view(shape))
            y = low
        return y


def sources(length: int, out: int, mode: Mode, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of every output along a dim: the inputs below and above it, and the upper one's share; as torch's interpolate takes them."""
    if mode == "nearest":
        # torch's own indices, which it rounds in float32.
        index = functional.interpolate(torch.arange(length, dtype=torch.float64)[None, None], out, mode="nearest")[0, 0].long()
        return index, index, torch.zeros(out, dtype=torch.float64)
    at = torch.arange(out, dtype=torch.float64)
    if align_corners:
        place = at * ((length - 1) / (out - 1) if out > 1 else 0.0)
    else:
        place = ((at + 0.5) * (length / out) - 0.5).clamp(min=0)
    low = place.floor().long().clamp(max=length - 1)
    return low, (low + 1).clamp(max=length - 1), (place - low).clamp(0, 1)
