"""Max and average pooling in 1 to 3 dims over ranks that hold parts of the field."""

# B batch, C channels of this rank, S and s spatial dims of input and output.

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.field import Field
from modeling.parallel.field_windows import FieldWindows, check_field
from modeling.parallel.window import Window, per_dim

Setting = int | Sequence[int]

MAXIMUM: dict[int, Callable[..., Tensor]] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE: dict[int, Callable[..., Tensor]] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class Pooling(nn.Module):
    """What both have in common: windows side by side by default, padded by at most half of one, as in torch. Channels are as they come."""

    def __init__(
        self, kernel_size: Setting, field: Field, stride: Setting | None, padding: Setting, dilation: Setting, zeros: bool
    ) -> None:
        super().__init__()
        settings = {
            "kernel_size": kernel_size,
            "stride": kernel_size if stride is None else stride,
            "padding": padding,
            "dilation": dilation,
        }
        self.kernel, self.stride, pads, self.dilation = (per_dim(value, field.dims, name) for name, value in settings.items())
        windows = [Window(*one) for one in zip(self.kernel, self.stride, pads, self.dilation, strict=True)]
        for window in windows:
            if window.padding > window.kernel // 2:
                raise ModelError(
                    f"a pooling window of {window.kernel} taps can be padded by at most {window.kernel // 2}, got {window.padding}"
                )
        self.field, self.over = field, FieldWindows(field, windows, zeros)
        self.output = self.over.output

    def empty(self, x_BCS: Tensor) -> Tensor:
        """A result without elements, still in the graph: on the way back the other ranks wait for this one."""
        return x_BCS.new_zeros((*x_BCS.shape[:2], *self.over.local_size(x_BCS))) + 0 * x_BCS.sum()


class ParallelMaxPool(Pooling):
    """torch's MaxPoolNd, N the spatial dims of `field`: x_BCS the rank's points -> y_BCs balanced blocks of the outputs' points (`output`).

    The gradient goes to the first of equal maxima, as in torch, whichever rank has it.
    """

    def __init__(
        self, kernel_size: Setting, field: Field, stride: Setting | None = None, padding: Setting = 0, dilation: Setting = 1
    ) -> None:
        super().__init__(kernel_size, field, stride, padding, dilation, zeros=False)
        # Beyond the outer border nothing is larger than -inf; torch's order of dims in `pad` is from the last to the first.
        split = [outside if group.size > 1 else (0, 0) for outside, group in zip(self.over.outside, field.groups, strict=True)]
        self.border = [width for outside in reversed(split) for width in outside]

    def forward(self, x_BCS: Tensor) -> Tensor:
        check_field(x_BCS, self.field, None, "this pooling")
        x_BCS = self.over.enter(x_BCS)
        if not x_BCS.numel():
            return self.empty(x_BCS)
        if any(self.border):
            x_BCS = functional.pad(x_BCS, self.border, value=float("-inf"))
        return MAXIMUM[self.field.dims](x_BCS, self.kernel, self.stride, self.over.padding, self.dilation)


class ParallelAveragePool(Pooling):
    """torch's AvgPoolNd: means over windows, in which the padding's zeros count, or do not where `count_padding` is false.

    x_BCS the rank's points -> y_BCs balanced blocks of the outputs' points (`output`).
    """

    def __init__(
        self, kernel_size: Setting, field: Field, stride: Setting | None = None, padding: Setting = 0, count_padding: bool = True
    ) -> None:
        super().__init__(kernel_size, field, stride, padding, 1, zeros=True)
        self.count_padding = count_padding
        split = [dim for dim, group in enumerate(field.groups) if group.size > 1 and self.over.windows[dim].padding]
        self.recounted = [] if count_padding else split
        for dim in self.recounted:
            self.register_buffer(f"points_{dim}", self.points_under(dim), persistent=False)

    def points_under(self, dim: int) -> Tensor:
        """How many of the field's points lie under each of this rank's windows along a dim."""
        window, length, box = self.over.windows[dim], self.field.size[dim], self.output.box
        outs = range(box.start[dim], box.stop[dim])
        reaches = [window.reach(range(out, out + 1)) for out in outs]
        return torch.tensor([min(one.stop, length) - max(one.start, 0) for one in reaches], dtype=torch.float64)

    def forward(self, x_BCS: Tensor) -> Tensor:
        check_field(x_BCS, self.field, None, "this pooling")
        x_BCS = self.over.enter(x_BCS)
        if not x_BCS.numel():
            return self.empty(x_BCS)
        y_BCs = AVERAGE[self.field.dims](x_BCS, self.kernel, self.stride, self.over.padding, False, self.count_padding)
        for dim in self.recounted:
            # The local kernel has counted the halo's zeros as points.
            shape = [-1 if axis == dim else 1 for axis in range(self.field.dims)]
            y_BCs = y_BCs * (self.kernel[dim] / self.get_buffer(f"points_{dim}")).to(y_BCs.dtype).view(shape)
        return y_BCs
