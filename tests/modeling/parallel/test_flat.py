"""Flat intervals of ranks' tensors: their boxes tile the whole tensor, and what is written comes back."""

from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling.errors import ModelError
from modeling.parallel.flat import interval_boxes, read_interval, split_interval
from modeling.parallel.partition import Box, check_tiling, whole
from modeling.parallel.pieces import Pieces, columns, rows

shapes = st.lists(st.integers(1, 6), min_size=0, max_size=4)


def cuts_of(length: int, draw) -> list[int]:
    return sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=5))})


@given(shapes, st.data())
def test_intervals_are_few_boxes_in_order(shape: list[int], data) -> None:
    full = torch.arange(prod(shape)).view(shape)
    points = cuts_of(prod(shape), data.draw)
    for begin, end in pairwise(points):
        boxes = split_interval(shape, begin, end)
        assert len(boxes) <= max(1, 2 * len(shape) - 1)
        values = torch.cat([full[box.inside(whole(shape))].reshape(-1) for box in boxes])
        assert values.tolist() == list(range(begin, end))


def divided(shape: list[int], ranks: int, kind: str) -> list[Pieces]:
    """The parts of a parameter over ranks: rows, columns, or two fused blocks of rows."""
    if kind == "columns":
        step = -(-shape[1] // ranks)
        return [columns(shape, range(min(shape[1], r * step), min(shape[1], (r + 1) * step))) for r in range(ranks)]
    if kind == "rows":
        step = -(-shape[0] // ranks)
        return [rows(shape, [range(min(shape[0], r * step), min(shape[0], (r + 1) * step))]) for r in range(ranks)]
    half = shape[0] // 2
    step = -(-half // ranks)
    first = [range(min(half, r * step), min(half, (r + 1) * step)) for r in range(ranks)]
    return [rows(shape, [one, range(half + one.start, half + one.stop)]) for one in first]


@given(
    st.tuples(st.integers(1, 5).map(lambda half: 2 * half), st.integers(1, 6)).map(list),
    st.integers(1, 4),
    st.sampled_from(["rows", "columns", "fused"]),
    st.data(),
)
def test_intervals_of_all_ranks_tile_the_whole_and_come_back(shape: list[int], ranks: int, kind: str, data) -> None:
    full = torch.arange(float(prod(shape))).view(shape)
    stored = torch.full_like(full, -1)
    places: list[Box] = []
    for pieces in divided(shape, ranks, kind):
        local = pieces.take(full).contiguous()
        points = cuts_of(local.numel(), data.draw)
        for begin, end in pairwise(points):
            for box, start in interval_boxes(pieces, begin, end):
                places.append(box)
                stored[box.inside(whole(shape))] = local.view(-1)[start : start + box.volume].view(box.size)

            def read(name: str, offsets, sizes) -> torch.Tensor:
                return full[Box(tuple(offsets), tuple(sizes)).inside(whole(shape))]

            assert torch.equal(read_interval(read, "w", pieces, begin, end), local.view(-1)[begin:end])
    check_tiling(places)
    assert torch.equal(stored, full)
    # An interval that is read from another place than it was written to is noticed.
    if full.numel() > 1:
        assert not torch.equal(stored.flatten().roll(1).view(shape), full)


def test_several_boxes_along_another_dim_are_refused() -> None:
    pieces = Pieces((4, 4), (Box((0, 0), (4, 1)), Box((0, 2), (4, 1))), dim=1)
    with pytest.raises(ModelError, match="only boxes along dim 0"):
        interval_boxes(pieces, 0, 3)
