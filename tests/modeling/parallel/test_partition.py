"""Index arithmetic against counting."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.errors import ModelError
from modeling.parallel.heads import share_heads
from modeling.parallel.partition import Box, balanced, check_tiling, grid_tiles, hull, nothing, starts, tiles, whole


@given(st.integers(0, 50), st.integers(1, 9))
def test_balanced_blocks_hold_all_and_differ_by_one(length: int, parts: int) -> None:
    lengths = balanced(length, parts)
    assert sum(lengths) == length
    assert len(lengths) == parts
    assert list(lengths) == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1
    assert [one for one in lengths if one == -(-length // parts)][: length % parts] == list(lengths[: length % parts])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=3))
def test_a_grid_holds_every_index_once(dims: list[tuple[int, int]]) -> None:
    shape, grid = [length for length, _ in dims], [parts for _, parts in dims]
    boxes = grid_tiles(shape, grid)
    check_tiling(boxes)
    held = [index for box in boxes for index in itertools.product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True)))]
    assert sorted(held) == list(itertools.product(*(range(length) for length in shape)))


BOX = st.tuples(st.integers(-2, 4), st.integers(0, 4))


@given(BOX, BOX, BOX, BOX)
def test_what_two_boxes_share_is_what_lies_in_both(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int], d: tuple[int, int]) -> None:
    one, other = Box((a[0], b[0]), (a[1], b[1])), Box((c[0], d[0]), (c[1], d[1]))

    def indices(box: Box) -> set[tuple[int, ...]]:
        return set(itertools.product(*(range(first, last) for first, last in zip(box.start, box.stop, strict=True))))

    assert indices(one.meet(other)) == indices(one) & indices(other)
    assert one.meet(other).volume == len(indices(one) & indices(other))


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([Box((0,), (2,)), Box((1,), (2,))], "4 indices where 3"),
        ([Box((0,), (2,)), Box((3,), (2,))], "4 indices where 5"),
        ([Box((0, 0), (2, 2)), Box((1, 1), (2, 2)), Box((2, 0), (1, 1)), Box((0, 2), (1, 0))], "overlap"),
        ([Box((0,), (3,)), Box((1,), (1,)), Box((4,), (1,))], "overlap"),
    ],
)
def test_boxes_that_overlap_or_leave_gaps_are_refused(boxes: list[Box], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_tiling(boxes)


def test_empty_parts_lie_nowhere() -> None:
    assert hull([nothing(2), Box((1, 2), (3, 4)), nothing(2)]) == Box((1, 2), (3, 4))
    assert hull([nothing(2)]) == nothing(2)
    check_tiling(tiles([(0, 3, 0), (2,)]))
    assert whole([2, 3]).volume == 6
    assert starts([2, 0, 3]) == (0, 2, 2)
    with pytest.raises(ModelError, match="at least 0 indices and 1 block"):
        balanced(3, 0)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 9))
def test_every_head_is_computed_once_with_its_key(num_kv_heads: int, group: int, ranks: int) -> None:
    shares = share_heads(num_kv_heads * group, num_kv_heads, ranks)
    assert [head for share in shares for head in share.queries] == list(range(num_kv_heads * group))
    assert [head for share in shares for head in share.held] == list(range(num_kv_heads))
    for share in shares:
        assert [share.needed.start + place for place in share.key_of_query] == [head // group for head in share.queries]
        assert set(share.needed) == {head // group for head in share.queries}


def test_medium_on_four_and_eight_ranks() -> None:
    """40 query and 10 key heads: query work is even, and at most two key heads more than the tenth part are needed."""
    four, eight = share_heads(40, 10, 4), share_heads(40, 10, 8)
    assert [len(share.queries) for share in four] == [10] * 4
    assert [len(share.needed) for share in four] == [3, 3, 3, 3]
    assert [len(share.queries) for share in eight] == [5] * 8
    assert max(len(share.needed) for share in eight) == 2
    assert not four[0].regular
    assert share_heads(32, 8, 4)[1].regular
