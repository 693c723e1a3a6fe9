"""The order of rows: every row in every pass, little padding, a function of the seed alone."""

from collections import Counter

import pytest

import alignment.order
from alignment.order import num_steps, row_order


def padding(order: list[int], lengths: list[int], batch_rows: int) -> float:
    """Padded tokens over real ones."""
    batches = [[lengths[row] for row in order[at : at + batch_rows]] for at in range(0, len(order), batch_rows)]
    return sum(len(batch) * max(batch) for batch in batches) / sum(map(sum, batches)) - 1


def test_rows_are_seen_equally_often_and_share_batches_with_their_like() -> None:
    lengths = [10 + 37 * row % 90 for row in range(64)]
    order = row_order(lengths, num_batches=24, batch_rows=8, seed=1)
    assert set(Counter(order).values()) == {3}
    assert padding(order, lengths, 8) < 0.4
    assert padding(list(range(64)), lengths, 8) > 0.5  # as they come: the figure above is not free
    assert order == row_order(lengths, 24, 8, seed=1)
    assert order != row_order(lengths, 24, 8, seed=2)


def kinds_per_batch(order: list[int], kinds: list[int], batch_rows: int) -> float:
    """Different kinds of rows in a batch, on average."""
    starts = range(0, len(order), batch_rows)
    return sum(len({kinds[row] for row in order[at : at + batch_rows]}) for at in starts) / len(starts)


def test_a_batch_mixes_kinds_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds differ in length; batches that are all of one kind teach badly, so rows are sorted within small windows only."""
    kinds = [row % 8 for row in range(4096)]
    lengths = [20 + 10 * kind for kind in kinds]
    assert kinds_per_batch(row_order(lengths, 64, 32, seed=0), kinds, 32) > 4
    monkeypatch.setattr(alignment.order, "WINDOW_BATCHES", 64)
    assert kinds_per_batch(row_order(lengths, 64, 32, seed=0), kinds, 32) < 2


def test_a_file_smaller_than_a_batch() -> None:
    assert Counter(row_order([5, 6, 7], num_batches=1, batch_rows=6, seed=0)) == {0: 2, 1: 2, 2: 2}


def test_steps_or_epochs() -> None:
    assert num_steps(100, steps=0, epochs=1.5, rows_per_step=16) == 10
    assert num_steps(100, steps=7, epochs=1.5, rows_per_step=16) == 7
