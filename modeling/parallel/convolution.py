"""Convolution in 1 to 3 dims over ranks that hold parts of the field, of the channels, or of both."""

# B batch, i and o input and output channels of this rank, I and O all of them, S and s spatial dims of input and output, K kernel.

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.field import Field, check_apart
from modeling.parallel.field_windows import FieldWindows, check_field
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.operator import Chain
from modeling.parallel.partition import Box, balanced, starts
from modeling.parallel.pieces import Pieces
from modeling.parallel.sums import Broadcast, SumReduce
from modeling.parallel.window import Window, per_dim

CONVOLVE: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class ParallelConv(nn.Module):
    """torch's ConvNd with groups=1 and zero padding, N the spatial dims of `field` (DistDL, arXiv 2006.03108, section 4).

        x_BiS   the rank's points; channels are parts over in_group, shared over out_group
        y_Bos   balanced blocks of the outputs' points (`output`); channels are parts over out_group, shared over in_group
        forward     y_o = SumReduce_in(conv(Halo Broadcast_out x_i, Broadcast_field W_oi)) + Broadcast_field b_o
        gradients   dx_i = SumReduce_out(Halo* conv*(dy_o)); those of W_oi and b_o are sums over the field's ranks

    Parts of the field alone, of channels alone, or both, are the same formula. Operators over one rank are the identity, so that there the
    layer is torch's own call. Weight and bias are shared over the field's ranks. Blocks are balanced and may be empty.

    kernel_size, stride, padding, dilation   one number, or one per spatial dim
    in_group, out_group                      ranks of mesh axes that `field` does not use
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        field: Field,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        in_group: Group = ALONE,
        out_group: Group = ALONE,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ModelError(f"a convolution needs at least 1 channel on each side, got {in_channels} in and {out_channels} out")
        check_apart(field, in_group, out_group)
        settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        kernel, self.stride, pads, self.dilation = (per_dim(value, field.dims, name) for name, value in settings.items())
        over = FieldWindows(field, [Window(*one) for one in zip(kernel, self.stride, pads, self.dilation, strict=True)], zeros=True)
        self.field, self.over, self.output = field, over, over.output
        self.enter, self.leave, self.spread = Chain([Broadcast(out_group), over.enter]), SumReduce(in_group), field.spread
        self.alone = field.alone and in_group.size == out_group.size == 1
        outs, ins = balanced(out_channels, out_group.size), balanced(in_channels, in_group.size)
        o, i = out_group.index, in_group.index
        block = Box((starts(outs)[o], starts(ins)[i], *[0] * field.dims), (outs[o], ins[i], *kernel))
        self.weight = nn.Parameter(torch.empty(block.size, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(outs[o], dtype=dtype)) if bias else None
        self.pieces = {
            "weight": Pieces((out_channels, in_channels, *kernel), (block,)),
            "bias": Pieces((out_channels,), (Box(block.start[:1], block.size[:1]),)),
        }
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """torch's initial values. Every rank draws the whole tensors and keeps its part, so ranks with equal seeds agree on any grid."""
        for name, parameter in self.named_parameters():
            piece = self.pieces[name]
            whole = parameter if piece.shared else parameter.new_empty(piece.shape)
            if name == "weight":
                nn.init.kaiming_uniform_(whole, a=5**0.5)
            else:
                bound = prod(self.pieces["weight"].shape[1:]) ** -0.5
                nn.init.uniform_(whole, -bound, bound)
            if whole is not parameter:
                parameter.copy_(piece.take(whole))

    def forward(self, x_BiS: Tensor) -> Tensor:
        check_field(x_BiS, self.field, self.weight.shape[1], "this convolution")
        if self.alone:
            return self.convolve(x_BiS, self.weight, self.bias)
        weight_oiK = self.spread(self.weight)
        bias_o = None if self.bias is None else self.spread(self.bias)
        x_BiS = self.enter(x_BiS)
        if self.leave.does_nothing:
            return self.convolve(x_BiS, weight_oiK, bias_o)
        y_Bos = self.leave(self.convolve(x_BiS, weight_oiK, None))
        # The bias counts once: after the sum over input channels.
        return y_Bos if bias_o is None else y_Bos + bias_o.view(-1, *[1] * self.field.dims)

    def convolve(self, x_BiS: Tensor, weight_oiK: Tensor, bias_o: Tensor | None) -> Tensor:
        """This rank's share."""
        if x_BiS.numel() and weight_oiK.numel():
            return CONVOLVE[self.field.dims](x_BiS, weight_oiK, bias_o, self.stride, self.over.padding, self.dilation)
        # Sums without elements, which the kernels refuse. All stay in the graph: on the way back the other ranks wait for this one.
        y_Bos = x_BiS.new_zeros((x_BiS.shape[0], weight_oiK.shape[0], *self.over.local_size(x_BiS))) + 0 * (x_BiS.sum() + weight_oiK.sum())
        return y_Bos if bias_o is None else y_Bos + bias_o.view(-1, *[1] * self.field.dims)
