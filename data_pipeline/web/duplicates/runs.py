"""Sorted runs of (key, number) records on disk and their merge in bounded memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

PLACE_BITS = 22
KEY_BITS = 64 - PLACE_BITS
PLACE_MASK = np.uint64((1 << PLACE_BITS) - 1)


def write_run(path: Path, keys: np.ndarray, numbers: np.ndarray) -> None:
    """Writes records by rising key, equal keys in their order: all keys (uint64 [n]), then all numbers (int64 [n])."""
    order = np.argsort(keys, kind="stable")
    with open(path, "wb") as file:
        file.write(keys[order].data)
        file.write(numbers[order].data)


def write_packed_run(path: Path, keys: np.ndarray, first: int, taking_part: np.ndarray | None) -> None:
    """The same for the numbers first, first + 1, ... (at most 2**PLACE_BITS) of those that take part; of a key its upper KEY_BITS stay.

    Keys and places are sorted as one number each, which is several times as fast as an order of places.
    """
    packed = (keys & ~PLACE_MASK) | np.arange(len(keys), dtype=np.uint64)
    if taking_part is not None:
        packed = packed[taking_part]
    packed.sort()
    with open(path, "wb") as file:
        file.write((packed >> np.uint64(PLACE_BITS)).data)
        file.write(((packed & PLACE_MASK).view(np.int64) + first).data)


class Run:
    """A run that is read from its beginning, a block at a time."""

    def __init__(self, path: Path, block: int) -> None:
        self.path, self.block = path, block
        self.count = path.stat().st_size // 16
        self.read = 0
        self.keys, self.numbers = np.empty(0, np.uint64), np.empty(0, np.int64)

    def fill(self) -> None:
        """Reads on until a block is there."""
        more = min(self.block - len(self.keys), self.count - self.read)
        if more > 0:
            keys = np.fromfile(self.path, np.uint64, more, offset=8 * self.read)
            numbers = np.fromfile(self.path, np.int64, more, offset=8 * (self.count + self.read))
            self.keys, self.numbers = np.concatenate([self.keys, keys]), np.concatenate([self.numbers, numbers])
            self.read += more

    @property
    def more(self) -> bool:
        """Whether records lie behind the block."""
        return self.read < self.count

    def take(self, last: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """The block's records up to and with `last`, or all of them."""
        stop = len(self.keys)
        if last is not None:
            key, number = last
            stop = int(np.searchsorted(self.keys, np.uint64(key), "left"))
            equal = int(np.searchsorted(self.keys, np.uint64(key), "right"))
            stop += int(np.searchsorted(self.numbers[stop:equal], number, "right"))
        taken = self.keys[:stop], self.numbers[:stop]
        self.keys, self.numbers = self.keys[stop:], self.numbers[stop:]
        return taken


def merged(paths: Sequence[Path], stretch: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The records of all runs by (key, number), `stretch` of them or fewer at a time: keys, numbers, and which keys surely stand alone.

    Numbers rise within equal keys of a run, and those of an earlier run are below those of a later one. A key that may go on in the next
    stretch does not count as alone.
    """
    runs = [Run(path, max(16, stretch // len(paths))) for path in paths]
    before: int | None = None
    while True:
        for run in runs:
            run.fill()
        lasts = [(int(run.keys[-1]), int(run.numbers[-1])) for run in runs if run.more]
        last = min(lasts) if lasts else None
        parts = [run.take(last) for run in runs]
        keys, numbers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(runs) > 1:
            order = np.argsort(keys, kind="stable")
            keys, numbers = keys[order], numbers[order]
        if len(keys):
            yield keys, numbers, alone(keys, before, last is not None)
            before = int(keys[-1])
        if last is None:
            return


def alone(keys: np.ndarray, before: int | None, goes_on: bool) -> np.ndarray:
    """Which sorted keys have no equal one beside them, neither the one before the stretch nor one that may come after it: bool [n]."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    single = first.copy()
    single[:-1] &= first[1:]
    if before is not None and int(keys[0]) == before:
        single[0] = False
    if goes_on:
        single[-1] = False
    return single
