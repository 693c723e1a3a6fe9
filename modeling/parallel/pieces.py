"""Which entries of a whole parameter a rank holds: boxes of the whole, and where each lies in the rank's own tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modeling.parallel.partition import Box, whole


@dataclass(frozen=True)
class Pieces:
    """`boxes` of a parameter of the shape `shape`, one behind another along dim `dim` in this rank's tensor.

    A fused matrix has several: the gate's rows and the rows of up, say. `shared` parameters are whole on every rank and count once; one
    that lies whole on a rank because the others have nothing of it is not.
    """

    shape: tuple[int, ...]
    boxes: tuple[Box, ...]
    dim: int = 0
    shared: bool = False

    def take(self, full: Tensor) -> Tensor:
        """This rank's tensor, cut from the whole one."""
        cuts = [full[box.inside(whole(self.shape))] for box in self.boxes]
        return cuts[0] if len(cuts) == 1 else torch.cat(cuts, self.dim)

    def lay(self, local: Tensor) -> Iterator[tuple[Box, Tensor]]:
        """Each box with its values, as views of this rank's tensor."""
        lengths = [box.size[self.dim] for box in self.boxes]
        yield from zip(self.boxes, local.split(lengths, self.dim), strict=True)


def rows(shape: Sequence[int], ranges: Sequence[range]) -> Pieces:
    """Ranges of rows (dim 0) of a matrix or vector, neighbouring ones as one box; no range is nothing of it."""
    ranges = merged(ranges) or [range(0)]
    return Pieces(tuple(shape), tuple(Box((one.start, *[0] * (len(shape) - 1)), (len(one), *shape[1:])) for one in ranges))


def merged(ranges: Sequence[range]) -> list[range]:
    """The same indices in the same order, with ranges that follow one another joined."""
    found: list[range] = []
    for one in ranges:
        if found and found[-1].stop == one.start:
            found[-1] = range(found[-1].start, one.stop)
        else:
            found.append(one)
    return found


def columns(shape: Sequence[int], columns_: range) -> Pieces:
    """A range of columns (dim 1) of a matrix."""
    return Pieces(tuple(shape), (Box((0, columns_.start), (shape[0], len(columns_))),), 1)


def parameter_pieces(module: nn.Module) -> dict[str, Pieces]:
    """What this rank holds of every parameter, by name. Modules that split a parameter say so in `pieces`; all others hold theirs whole."""
    found: dict[str, Pieces] = {}
    for prefix, owner in module.named_modules():
        said: dict[str, Pieces] = getattr(owner, "pieces", {})
        for name, parameter in owner.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            found[full] = said.get(name, Pieces(tuple(parameter.shape), (whole(tuple(parameter.shape)),), shared=True))
    return found
