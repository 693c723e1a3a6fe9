"""Batch norm over ranks that hold parts of the field, and of the samples where the field says so."""

# B batch, C channels of this rank, S spatial dims.

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from modeling.errors import ModelError
from modeling.parallel.exchange import sum_dtype
from modeling.parallel.field import Field, check_apart
from modeling.parallel.field_windows import check_field
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.partition import Box, balanced, starts
from modeling.parallel.pieces import Pieces
from modeling.parallel.sums import AllSumReduce


class ParallelBatchNorm(_BatchNorm):
    """torch's BatchNormNd (arXiv 1502.03167), its statistics over all points on all ranks of the field; names and running values as there.

        x_BCS -> y_BCS     the rank's points, there and back
        mean_C = A sum x / n,   var_C = A sum (x - mean)^2 / n,   A = AllSumReduce over the field's ranks

    A is its own adjoint, since every rank uses the sums on its own points. Two passes, so that a large mean costs no digits. Running
    statistics are the same bits on all ranks of the field. Channels are balanced parts over `channels`, whole by default.
    """

    def __init__(
        self,
        num_features: int,
        field: Field,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        channels: Group = ALONE,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_apart(field, channels)
        lengths = balanced(num_features, channels.size)
        mine = lengths[channels.index]
        super().__init__(mine, eps, momentum, affine, track_running_stats, dtype=dtype)
        piece = Pieces((num_features,), (Box((starts(lengths)[channels.index],), (mine,)),))
        self.pieces = {"weight": piece, "bias": piece} if affine else {}
        self.field, self.spread, self.add = field, field.spread, AllSumReduce(field.group)

    def _check_input_dim(self, input: Tensor) -> None:
        check_field(input, self.field, self.num_features, "this batch norm")

    def forward(self, input: Tensor) -> Tensor:
        counted = self.training or not self.track_running_stats
        # A rank without channels takes the long way, since torch's kernel refuses it.
        if self.num_features and (self.field.alone or not counted):
            return self.plain(input, counted)
        self._check_input_dim(input)
        wide_BCS = input.to(sum_dtype(input.dtype))
        shape = [-1, *[1] * self.field.dims]
        if counted:
            centred_BCS, var_C = self.centred(wide_BCS, shape)
        else:
            centred_BCS, var_C = wide_BCS - self.get_buffer("running_mean").view(shape), self.get_buffer("running_var")
        y_BCS = centred_BCS * torch.rsqrt(var_C + self.eps).view(shape)
        if self.affine:
            y_BCS = y_BCS * self.spread(self.weight).view(shape) + self.spread(self.bias).view(shape)
        return y_BCS.to(input.dtype)

    def plain(self, x_BCS: Tensor, counted: bool) -> Tensor:
        """torch's kernel, where no other rank's points are needed."""
        if self.field.alone:
            if counted and x_BCS.numel() == x_BCS.shape[1]:
                raise ModelError("batch norm in training needs more than 1 value per channel")
            return super().forward(x_BCS)
        self._check_input_dim(x_BCS)
        weight_C, bias_C = (self.spread(self.weight), self.spread(self.bias)) if self.affine else (None, None)
        return functional.batch_norm(x_BCS, self.running_mean, self.running_var, weight_C, bias_C, False, 0.0, self.eps)

    def centred(self, x_BCS: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
        """x without its mean over all ranks, and the variance over all ranks, a copy on each."""
        over = [0, *range(2, x_BCS.ndim)]
        # The number of points travels with the sums: a rank knows its own samples only.
        totals = self.add(torch.cat((x_BCS.sum(over), x_BCS.new_full((1,), points(x_BCS)))))
        count = totals[-1].detach()
        mean_C = totals[:-1] / count
        x_BCS = x_BCS - mean_C.view(shape)
        var_C = self.add(x_BCS.square().sum(over)) / count
        self.update(mean_C, var_C, count)
        return x_BCS, var_C

    @torch.no_grad()
    def update(self, mean_C: Tensor, var_C: Tensor, count: Tensor) -> None:
        """The running statistics, of the unbiased variance; momentum None is the plain average over all batches so far."""
        if not self.training or not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var_C * count / (count - 1)).to(self.running_var.dtype), share)


def points(x_BCS: Tensor) -> int:
    """Values per channel."""
    return x_BCS.shape[0] * x_BCS.shape[2:].numel()
