"""Packing documents into rows: which document, or piece of one, lies where in which row.

A row has T + 1 slots: T input tokens and one more that is only a target. Documents are taken in a seeded order; one that fits a row is
kept whole and goes into the fullest open row with room for it (best fit). A longer one is cut into pieces of T + 1 tokens that overlap by
one, so that every token but the document's first is a target exactly once; its last piece is packed like a short document. Rows are then
shuffled.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """One epoch of some documents, in the order in which rows are read. Pieces are spans of the source's long row of ids."""

    starts: IntArray  # (pieces,) first id of each piece
    lengths: IntArray  # (pieces,) number of ids, 2 .. T + 1
    row_ends: IntArray  # (rows,) exclusive end of each row's pieces
    targets_until: IntArray  # (rows + 1,) how many targets the first n rows hold

    @property
    def num_rows(self) -> int:
        return len(self.row_ends)

    def pieces(self, row: int) -> tuple[IntArray, IntArray]:
        """Starts and lengths of the pieces in a row."""
        span = slice(int(self.row_ends[row - 1]) if row else 0, int(self.row_ends[row]))
        return self.starts[span], self.lengths[span]


def pack(ends: IntArray, context: int, key: str, begin: int = 0) -> Packing:
    """The rows of one epoch; a pure function of the documents' ends, where the first begins, the context T and the key."""
    starts, lengths = cut(ends, context + 1, shuffled(len(ends), f"{key}/documents"), begin)
    row_of_piece, num_rows = best_fit(lengths, context + 1)
    place = np.empty(num_rows, np.int64)  # where each row stands after the shuffle
    place[shuffled(num_rows, f"{key}/rows")] = np.arange(num_rows)
    rows = place[row_of_piece]
    order = np.argsort(rows, kind="stable")
    row_ends = np.cumsum(np.bincount(rows, minlength=num_rows))
    targets = np.bincount(rows, weights=lengths - 1, minlength=num_rows).astype(np.int64)
    return Packing(starts[order], lengths[order], row_ends, np.concatenate([[0], np.cumsum(targets)]))


def cut(ends: IntArray, slots: int, order: IntArray, begin: int = 0) -> tuple[IntArray, IntArray]:
    """Starts and lengths of the pieces of the documents in `order`; a document of one token holds no target and is left out."""
    begins = np.concatenate([[begin], ends[:-1]])[order]
    sizes = ends[order] - begins
    step = slots - 1
    counts = np.maximum(-(-(sizes - 1) // step), 0)  # a piece of n ids holds n - 1 targets
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of the piece in its document
    starts = np.repeat(begins, counts) + number * step
    return starts, np.minimum(np.repeat(sizes, counts) - number * step, slots)


def best_fit(lengths: IntArray, slots: int) -> tuple[IntArray, int]:
    """The row of each piece, and how many rows there are. Bit r of `rooms` says that some open row has exactly r free slots."""
    row_of_piece = np.empty(len(lengths), np.int64)
    open_rows: list[list[int]] = [[] for _ in range(slots + 1)]
    rooms, num_rows = 0, 0
    for piece, length in enumerate(lengths.tolist()):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
        else:
            room, row = slots, num_rows
            num_rows += 1
        row_of_piece[piece] = row
        left = room - length
        if left >= 2:
            open_rows[left].append(row)
            rooms |= 1 << left
    return row_of_piece, num_rows


def shuffled(count: int, key: str) -> IntArray:
    """A permutation of 0 .. count - 1 that depends on nothing but the key.

    The order of SplitMix64's outputs (Steele, Lea, Flood 2014): numpy does not promise its own streams across versions.
    """
    seed = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")
