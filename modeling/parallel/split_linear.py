"""The first and the last matrix of a decoder's block, split over the ranks of the stream; on one rank plain linear layers."""

# B batch, T tokens, f this rank's features, D width.

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from modeling.parallel.operator import Operator
from modeling.parallel.pieces import Pieces, columns, rows
from modeling.parallel.stream import Stream


class PartLinear(nn.Linear):
    """A linear layer that holds a part of its matrix, maybe nothing of it."""

    pieces: dict[str, Pieces]

    def reset_parameters(self) -> None:
        if self.weight.numel():
            super().reset_parameters()


class ColumnLinear(PartLinear):
    """y_f = x W_fD^T + b_f: the rows `mine`, ranges one behind another, of a matrix (features, width). Its input has entered the block.

    Local there and back: the adjoint of the stream's `enter` adds up what the ranks' rows say about x.
    """

    def __init__(self, width: int, features: int, mine: Sequence[range], bias: bool) -> None:
        super().__init__(width, sum(len(one) for one in mine), bias=bias)
        self.pieces = {"weight": rows((features, width), mine), "bias": rows((features,), mine)}


class RowLinear(PartLinear):
    """x_f W_Df^T + b: the columns `mine` of a matrix (width, features), and the whole bias. On several ranks `leave_block` calls it."""

    def __init__(self, features: int, width: int, mine: range, bias: bool) -> None:
        super().__init__(len(mine), width, bias=bias)
        self.pieces = {"weight": columns((width, features), mine)}


def leave_block(linear: nn.Module, x_BTf: Tensor, stream: Stream, spread: Operator) -> Tensor:
    """leave(x_f W_Df^T) + b: the ranks' shares added up, then the bias, once. Any module of one argument will do, as float8's is."""
    if linear.bias is None or stream.leave.does_nothing:
        return stream.leave(linear(x_BTf))
    return stream.leave(functional.linear(x_BTf, linear.weight)) + spread(linear.bias)  # type: ignore[arg-type]
