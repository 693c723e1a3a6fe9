"""Flat intervals of a rank's tensor as boxes of the whole one: what ZeRO gives a rank is cut without regard to rows."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.partition import Box
from modeling.parallel.pieces import Pieces

# (name, offsets, sizes) -> that box of a stored tensor
ReadBox = Callable[[str, Sequence[int], Sequence[int]], Tensor]


def split_interval(shape: Sequence[int], begin: int, end: int) -> list[Box]:
    """The entries `begin` to `end` of a tensor counted row by row, as boxes in that order: at most 2 dims - 1 of them.

    A part of the first row, whole rows, a part of the last; the parts are intervals of a tensor of one dim less.
    """
    if begin >= end:
        return []
    if not shape:
        return [Box((), ())]
    row = prod(shape[1:])
    (first, skipped), (last, left) = divmod(begin, row), divmod(end, row)
    if first == last:
        return in_row(first, shape, skipped, left)
    found = in_row(first, shape, skipped, row) if skipped else []
    full = first + bool(skipped)
    if full < last:
        found.append(Box((full, *[0] * (len(shape) - 1)), (last - full, *shape[1:])))
    return found + (in_row(last, shape, 0, left) if left else [])


def in_row(row: int, shape: Sequence[int], begin: int, end: int) -> list[Box]:
    """An interval of one row, as boxes of the tensor."""
    return [Box((row, *box.start), (1, *box.size)) for box in split_interval(shape[1:], begin, end)]


def interval_boxes(pieces: Pieces, begin: int, end: int) -> list[tuple[Box, int]]:
    """Boxes of the whole parameter that the entries `begin` to `end` of this rank's tensor are, each with where its values begin in that
    tensor counted row by row. The values of a box follow one another."""
    if pieces.dim != 0 and len(pieces.boxes) > 1:
        raise ModelError(f"boxes along dim {pieces.dim} do not follow one another in memory; only boxes along dim 0 may be several")
    found: list[tuple[Box, int]] = []
    base = 0
    for box in pieces.boxes:
        start, stop = max(begin, base), min(end, base + box.volume)
        place = start
        for inner in split_interval(box.size, start - base, stop - base):
            found.append((Box(tuple(a + b for a, b in zip(inner.start, box.start, strict=True)), inner.size), place))
            place += inner.volume
        base += box.volume
    return found


def read_interval(read: ReadBox, name: str, pieces: Pieces, begin: int, end: int) -> Tensor:
    """The entries `begin` to `end` of this rank's tensor, (end - begin,), from a store of whole tensors."""
    parts = [read(name, box.start, box.size).reshape(-1) for box, _ in interval_boxes(pieces, begin, end)]
    return torch.cat(parts) if parts else torch.empty(0)
