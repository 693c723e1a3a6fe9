"""The first and the last matrix of a decoder's block, split over the ranks of the stream; on one rank plain linear layers."""

# B batch, T tokens, f this rank's features, D width.

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from modeling.parallel.pieces import Pieces, columns, rows
from modeling.parallel.stream import Parallel, Stream


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
    """y = leave(x_f W_Df^T) + b: the columns `mine` of a matrix (width, features), and the whole bias, added once, after the sum."""

    def __init__(self, features: int, width: int, mine: range, bias: bool, parallel: Parallel) -> None:
        super().__init__(len(mine), width, bias=bias)
        self.alone = parallel.tensor_group.size == 1
        self.spread = parallel.spread
        self.pieces = {"weight": columns((width, features), mine)}

    def forward(self, x_BTf: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        if self.alone:
            return super().forward(x_BTf)
        y_BTD = stream.leave(functional.linear(x_BTf, self.weight))
        return y_BTD if self.bias is None else y_BTD + self.spread(self.bias)
