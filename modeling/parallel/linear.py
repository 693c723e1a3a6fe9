"""Linear layers whose weight is split over a grid of ranks: by output features, by input features, or both."""

# x_..i inputs, y_..o outputs; a lower-case letter is a dim split over ranks: i inputs, o outputs of this rank, I and O all of them.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.partition import Box, balanced, starts
from modeling.parallel.pieces import Pieces
from modeling.parallel.sums import Broadcast, SumReduce


class ParallelLinear(nn.Module):
    """y = x W^T + b, the weight a grid of blocks: rows (outputs) over `out_group`, columns (inputs) over `in_group` (DistDL, section 4).

        x_..i   parts of the inputs over in_group, shared over out_group
        y_..o   parts of the outputs over out_group, shared over in_group
        forward     y_o = SumReduce_in(Broadcast_out(x_i) W_oi^T) + b_o
        gradients   dx_i = SumReduce_out(dy_o W_oi),  dW_oi = dy_o^T x_i,  db_o = sum of dy_o, all else local

    Column-parallel (Megatron's word, of W^T) is `out_group` alone, row-parallel `in_group` alone. Blocks are balanced; features fewer than
    ranks leave some empty.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        out_group: Group = ALONE,
        in_group: Group = ALONE,
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ModelError(f"a linear layer needs at least 1 feature on each side, got {in_features} in and {out_features} out")
        self.enter, self.leave = Broadcast(out_group), SumReduce(in_group)
        outs, ins = balanced(out_features, out_group.size), balanced(in_features, in_group.size)
        o, i = out_group.index, in_group.index
        block = Box((starts(outs)[o], starts(ins)[i]), (outs[o], ins[i]))
        self.weight = nn.Parameter(torch.empty(block.size, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(outs[o], dtype=dtype)) if bias else None
        self.pieces = {
            "weight": Pieces((out_features, in_features), (block,)),
            "bias": Pieces((out_features,), (Box(block.start[:1], block.size[:1]),)),
        }
        self.reset()

    def reset(self) -> None:
        """torch's initial values of a linear layer, for the whole one; use `Pieces.take` for values that do not depend on the ranks."""
        bound = self.pieces["weight"].shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x_i: Tensor) -> Tensor:
        x_i = self.enter(x_i)
        if self.leave.does_nothing:
            return functional.linear(x_i, self.weight, self.bias)
        y_o = self.leave(functional.linear(x_i, self.weight))
        return y_o if self.bias is None else y_o + self.bias
