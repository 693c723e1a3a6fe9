"""The n-grams of every benchmark item, in a compiled table that a page's word hashes are matched against.

The table is a function of the benchmark files and the settings: n-grams are numbered in the order of their hashes, so worker processes that
build or inherit the same index speak of the same numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from data_pipeline.benchmark_items import Item, benchmark_items
from data_pipeline.errors import InputError
from data_pipeline.web.decontamination.lookup import insert, scan
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.measures import hashes_of, ngram_hashes

SIEVE_BITS_PER_KEY = 16


class Hits(NamedTuple):
    """What one page has in common with the benchmarks: all that the driver keeps of it."""

    grams: np.ndarray  # int32, sorted: numbers of the n-grams that stand on the page
    answers: np.ndarray  # int32, sorted: items whose answer stands beside some of their n-grams


NO_HITS = Hits(np.empty(0, np.int32), np.empty(0, np.int32))


@dataclass(frozen=True, kw_only=True)
class ItemName:
    """Which item."""

    task: str
    split: str
    id: str


class BenchmarkIndex:
    """See `build`.

    Arrays: `keys` uint64 [grams], the hashes in rising order; `long` bool [grams]; `starts` int64 [grams + 1] and `items` int32: gram g is
    of the items `items[starts[g]:starts[g + 1]]`, none where it is the benchmark's own wording. `words` are each item's word hashes.
    """

    def __init__(
        self, settings: Decontamination, names: Sequence[ItemName], words: list[np.ndarray], answers: list[np.ndarray], grams: "Grams"
    ) -> None:
        self.settings = settings
        self.names = names
        self.words = words
        self.answers = answers
        self._own_words: dict[int, np.ndarray] = {}
        self.lengths = np.array([len(one) for one in words], np.int64)
        self.answer_lengths = np.array([len(one) for one in answers], np.int64)
        self.files: list[tuple[str, int]] = []  # every file that was read and its items
        self.keys, self.long, self.starts, self.items = grams
        self._bits = max(4, int(2 * len(self.keys)).bit_length())
        self._table = np.full(2**self._bits, -1, np.int32)
        self._sieve_bits = max(6, int(SIEVE_BITS_PER_KEY * len(self.keys)).bit_length())
        self._sieve = np.zeros(2 ** (self._sieve_bits - 6), np.uint64)
        insert(self.keys, self._bits, self._table, self._sieve, self._sieve_bits)

    @classmethod
    def build(cls, folders: str | Path | Iterable[str | Path], settings: Decontamination) -> "BenchmarkIndex":
        """The index of all items of these folders. Raises InputError for a folder without items and for a damaged file."""
        files: list[tuple[str, int]] = []
        items: list[Item] = []
        for folder in [folders] if isinstance(folders, str | Path) else folders:
            before = len(items)
            items += benchmark_items(folder, lambda path, count: files.append((path.name, count)))
            if len(items) == before:
                raise InputError(f"{folder}: no items in its {len(files)} files; a row needs a question, query, prompt, input or text")
        index = cls.of(items, settings)
        index.files = files
        return index

    @classmethod
    def of(cls, items: Sequence[Item], settings: Decontamination) -> "BenchmarkIndex":
        """The index of these items. Items of the same task, split and id are an error."""
        if settings.coverage_words >= settings.words:
            raise InputError(f"coverage_words = {settings.coverage_words} must be below words = {settings.words}")
        if not items:
            raise InputError("no benchmark items; at least one is needed to search for")
        names = [ItemName(task=item.task, split=item.split, id=item.id) for item in items]
        seen: set[ItemName] = set()
        for name in names:
            if name in seen:
                raise InputError(f"benchmark {name.task}: the item {name.id!r} of the split {name.split!r} comes from two folders")
            seen.add(name)
        words = [hashes_of(f"{item.question}\n{item.answer}") for item in items]
        answers = [hashes_of(item.answer) for item in items]
        return cls(settings, names, words, answers, gather(words, [name.task for name in names], settings))

    @property
    def fingerprint(self) -> str:
        """Equal for indexes whose hits may be decided together."""
        digest = xxhash.xxh3_128(self.keys.tobytes())
        for array in (self.long, self.starts, self.items):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def match(self, words: np.ndarray) -> Hits:
        """The n-grams that a page shares with the benchmarks; `words` is what `measures.measure(text)[1]` gives: uint64 [words]."""
        size = max(0, 2 * (len(words) - self.settings.coverage_words + 1))
        if not size:
            return NO_HITS
        grams, places = np.empty(size, np.int32), np.empty(size, np.int64)
        count = scan(
            words,
            self.settings.coverage_words,
            self.settings.words,
            self.keys,
            self._bits,
            self._table,
            self._sieve,
            self._sieve_bits,
            grams,
            places,
        )
        if not count:
            return NO_HITS
        grams, places = grams[:count], places[:count]
        useful = self.starts[grams] < self.starts[grams + 1]
        if not useful.any():
            return NO_HITS
        grams, places = grams[useful], places[useful]
        found = np.unique(grams)
        return Hits(found, self._answers_beside(words, grams, places, found))

    def match_text(self, text: str) -> Hits:
        """`match` for a text whose words have not been hashed yet."""
        return self.match(hashes_of(text))

    def evidence(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(items int32, long n-grams, short n-grams): of each item that has some of these n-grams, how many different ones."""
        lengths = self.starts[grams + 1] - self.starts[grams]
        firsts = np.repeat(self.starts[grams] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        items = self.items[firsts + np.arange(lengths.sum())]
        is_long = np.repeat(self.long[grams], lengths)
        found, inverse = np.unique(items, return_inverse=True)
        longs = np.bincount(inverse, weights=is_long, minlength=len(found)).astype(np.int64)
        return found, longs, np.bincount(inverse, minlength=len(found)) - longs

    def coverages(self, items: np.ndarray, shorts: np.ndarray, grams: np.ndarray, least: float) -> np.ndarray:
        """float [items]: the share of each item's words that lie in one of these short n-grams; 0 where it cannot reach `least`.

        `items` and `shorts` are what `evidence(grams)` gave.
        """
        shares = np.zeros(len(items))
        for place in np.flatnonzero(shorts * self.settings.coverage_words >= least * self.lengths[items]).tolist():
            shares[place] = self.covered(items[place], grams).mean()
        return shares

    def covered(self, item: int, grams: np.ndarray) -> np.ndarray:
        """bool [words of the item]: which of its words lie in one of these short n-grams (rising numbers)."""
        size = self.settings.coverage_words
        found = np.flatnonzero(np.isin(ngram_hashes(self.words[item], size), self.keys[grams]))
        covered = np.zeros(self.lengths[item], bool)
        for offset in range(size):
            covered[found + offset] = True
        return covered

    @cached_property
    def grams_of_items(self) -> tuple[np.ndarray, np.ndarray]:
        """(starts int64 [items + 1], n-grams int32): the numbers of each item's own n-grams, without the wording of its task."""
        owners = np.repeat(np.arange(len(self.keys)), np.diff(self.starts))
        order = np.argsort(self.items, kind="stable")
        counts = np.bincount(self.items, minlength=len(self.names))
        return np.concatenate([[0], np.cumsum(counts)]), owners[order].astype(np.int32)

    def own_words(self, item: int) -> np.ndarray:
        """bool [words of the item]: which of its words lie in a short n-gram of its own, so not in the wording of its task alone."""
        if item not in self._own_words:
            starts, grams = self.grams_of_items
            self._own_words[item] = self.covered(item, grams[starts[item] : starts[item + 1]])
        return self._own_words[item]

    def searchable(self) -> np.ndarray:
        """bool [items]: whether an item has an n-gram of its own; one that is too short, or all wording, cannot be found."""
        known = np.zeros(len(self.names), bool)
        known[self.items] = True
        return known

    def _answers_beside(self, words: np.ndarray, grams: np.ndarray, places: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Items with a near hit whose answer's words stand in a row within the window around their n-grams."""
        items, _, shorts = self.evidence(found)
        wanted = self.answer_lengths[items] >= self.settings.answer_words
        items, shorts = items[wanted], shorts[wanted]
        near = items[self.coverages(items, shorts, found, self.settings.near_coverage) >= self.settings.near_coverage]
        beside = []
        for item in near.tolist():
            answer = self.answers[item]
            mine = np.isin(self.keys[grams], ngram_hashes(self.words[item], self.settings.coverage_words))
            first = max(0, int(places[mine].min()) - self.settings.answer_window)
            last = int(places[mine].max()) + self.settings.words + self.settings.answer_window
            if stands_in(answer, words[first:last]):
                beside.append(item)
        return np.array(beside, np.int32)


Grams = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def stands_in(answer: np.ndarray, words: np.ndarray) -> bool:
    """Whether the answer's words stand in a row."""
    if len(words) < len(answer):
        return False
    return bool((np.lib.stride_tricks.sliding_window_view(words, len(answer)) == answer).all(axis=1).any())


def gather(words: list[np.ndarray], tasks: list[str], settings: Decontamination) -> Grams:
    """All n-grams of all items as the arrays of an index."""
    known = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    task_of_item = np.array([known[task] for task in tasks], np.int64)
    by_task = np.argsort(task_of_item, kind="stable").astype(np.int32)  # so that a gram's items of one task lie side by side
    text = np.concatenate([words[item] for item in by_task])
    lengths = np.array([len(words[item]) for item in by_task], np.int64)
    owner_of_word = np.repeat(np.arange(len(words)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    keys, owners = [], []
    for size in (settings.coverage_words, settings.words):
        whole = np.flatnonzero(np.arange(len(text)) + size <= ends)  # n-grams that begin and end in one item
        keys.append(ngram_hashes(text, size)[whole])
        owners.append(owner_of_word[whole])
    is_long = np.repeat([False, True], [len(one) for one in keys])
    all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
    order = np.lexsort((all_owners, all_keys))
    all_keys, all_owners, is_long = all_keys[order], all_owners[order], is_long[order]
    new_key = changes(all_keys)
    once = new_key | changes(all_owners)
    all_keys, all_owners, is_long, new_key = all_keys[once], all_owners[once], is_long[once], new_key[once]
    owners_by_item = by_task[all_owners]
    runs = np.cumsum(new_key | changes(task_of_item[owners_by_item])) - 1  # of one n-gram in one task
    own = np.bincount(runs, minlength=1)[runs] <= settings.max_item_frequency
    numbers = np.cumsum(new_key) - 1
    starts = np.concatenate([[0], np.cumsum(np.bincount(numbers[own], minlength=int(new_key.sum())))]).astype(np.int64)
    return all_keys[new_key], is_long[new_key], starts, owners_by_item[own]


def changes(values: np.ndarray) -> np.ndarray:
    """bool: where a value differs from the one before it; the first one does."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
