"""What of a run's state a rank holds: flat intervals of its own tensors, which are boxes of the whole ones in a checkpoint.

The state is float32 and logical: `weight/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`, whatever the layout that trains it. Every rank writes
what it is the owner of and reads back exactly what it holds, so nothing is gathered and nothing need be converted between layouts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from modeling.parallel.flat import interval_boxes, read_interval
from modeling.parallel.pieces import Pieces, parameter_pieces
from training.checkpoint import StatePiece

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")


class TensorReader(Protocol):
    """`modeling.checkpoint.Checkpoint`, as far as it is needed here."""

    def read(self, name: str, offsets: Iterable[int] | None = None, sizes: Iterable[int] | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Fragment:
    """Entries `begin` to `end` of this rank's tensor of parameter `name`, row by row: `values` (end - begin,), a view of the state itself.

    `kind` is WEIGHT or one of MOMENTS. `mine` says that this rank writes it: of ranks that hold the same, one does. Where `values` is a
    copy (of states kept elsewhere), `store` puts others in their place.
    """

    kind: str
    name: str
    begin: int
    end: int
    values: Tensor
    mine: bool = True
    store: Callable[[Tensor], None] | None = None

    def put(self, values: Tensor) -> None:
        """Replaces the values in the state."""
        if self.store is None:
            self.values.copy_(values)
        else:
            self.store(values)


def state_pieces(fragments: Iterable[Fragment], pieces: dict[str, Pieces]) -> Iterator[StatePiece]:
    """What this rank writes into a checkpoint."""
    for one in fragments:
        if one.mine:
            for box, start in interval_boxes(pieces[one.name], one.begin, one.end):
                values = one.values[start - one.begin : start - one.begin + box.volume].view(box.size)
                yield StatePiece(f"{one.kind}/{one.name}", values, pieces[one.name].shape, box.start)


@torch.no_grad()
def restore(fragments: Iterable[Fragment], pieces: dict[str, Pieces], checkpoint: TensorReader) -> None:
    """Fills everything this rank holds."""
    for one in fragments:
        one.put(read_interval(checkpoint.read, f"{one.kind}/{one.name}", pieces[one.name], one.begin, one.end))


@torch.no_grad()
def load_weights(decoder: nn.Module, checkpoint: TensorReader) -> None:
    """Fills the decoder, or this rank's part of it, with a checkpoint's weights."""
    pieces = parameter_pieces(decoder)
    for name, parameter in decoder.named_parameters():
        values = read_interval(checkpoint.read, f"{WEIGHT}/{name}", pieces[name], 0, parameter.numel())
        parameter.copy_(values.view(parameter.shape))
