"""Runs of words that stand in an earlier document too: quotations, copied sections, notices inside paragraphs.

Of each document, hashes of k-word windows are sampled by winnowing (Schleimer, Wilkerson and Aiken 2003): of each `span_words - k + 1`
windows in a row the one of the least hash. Two equal runs of `span_words` words or more share a sample, wherever they stand. Samples meet
in sorted runs on disk; each meeting is then followed in both directions over the hashes of the words themselves, which are kept on disk,
and counts when it is long enough. A sample is followed into the first document that has it and into the one before; a run that only a
third one between them shares can be missed. What goes from a document stands in an earlier one still: runs only ever point backwards.
"""

import itertools
import re
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from data_pipeline.errors import InputError
from data_pipeline.web.compiled import compiled
from data_pipeline.web.duplicates.runs import merged, write_run

WORD = re.compile(r"\w+")
PLACE_BITS = 26  # a document has at most 67 million words, and a crawl 137 thousand million documents
PLACE_MASK = (1 << PLACE_BITS) - 1
LEAST_MEMORY = 1 << 16
ODD = np.uint64(0x9E3779B97F4A7C15)


@compiled
def mixed(value):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def winnow(words, k, window, marks, places):  # type: ignore[no-untyped-def]
    """Samples the hashes of k-word windows: of each `window` in a row the least, the last of equal ones. Returns how many there are."""
    count = len(words) - k + 1
    if count < window:
        return 0  # shorter than a span
    power = np.uint64(1)
    for _ in range(k - 1):
        power *= ODD
    hashes = np.empty(count, np.uint64)
    rolling = np.uint64(0)
    for place in range(len(words)):
        if place >= k:
            rolling -= words[place - k] * power
        rolling = rolling * ODD + words[place]
        if place >= k - 1:
            hashes[place - k + 1] = mixed(rolling)
    found, least = 0, -1
    for end in range(window - 1, count):
        start = end - window + 1
        if least < start:
            least = start
            for place in range(start + 1, end + 1):
                if hashes[place] <= hashes[least]:
                    least = place
        elif hashes[end] <= hashes[least]:
            least = end
        if found == 0 or places[found - 1] != least:
            marks[found], places[found] = hashes[least], least
            found += 1
    return found


@compiled
def follow(words, starts, document, places, others, other_places, k, shortest, spans):  # type: ignore[no-untyped-def]
    """Follows each meeting of the document in both directions. spans[i] = first word, word behind the last, other document, its first word.

    `words` holds the words of all documents, document d from starts[d] to starts[d + 1]. Returns how many spans there are.
    """
    base, size, found, covered = starts[document], starts[document + 1] - starts[document], 0, 0
    for one in range(len(places)):
        other_base = starts[others[one]]
        other_size = starts[others[one] + 1] - other_base
        left, right = places[one], places[one]
        other_left, shift = other_places[one], other_places[one] - places[one]
        if left + k <= covered:
            continue  # inside what was found before
        while right < size and right + shift < other_size and words[base + right] == words[other_base + right + shift]:
            right += 1
        if right - left < k:
            continue  # two windows with the same hash
        while left > 0 and other_left > 0 and words[base + left - 1] == words[other_base + other_left - 1]:
            left, other_left = left - 1, other_left - 1
        if right - left >= shortest:
            spans[found, 0], spans[found, 1], spans[found, 2], spans[found, 3] = left, right, others[one], other_left
            found += 1
            covered = max(covered, right)
    return found


def words_of(text: str) -> np.ndarray:
    """The hash of each word in lower case: uint64 [words]."""
    words = WORD.findall(text)
    known = {word: xxhash.xxh3_64_intdigest(word.lower().encode("utf-8", "surrogatepass")) for word in set(words)}
    return np.fromiter((known[word] for word in words), np.uint64, len(words))


def strip_spans(text: str, spans: np.ndarray) -> tuple[str, int]:
    """The text without the spans of words (int64 [n, 2 or more]: first word, word behind the last), and how many characters it lost.

    With a span go the marks and blanks behind it up to the next word of its line, but no line break.
    """
    if not len(spans):
        return text, 0
    places = [match.span() for match in WORD.finditer(text)]
    kept, at = [], 0
    for first, behind in spans[np.argsort(spans[:, 0], kind="stable"), :2]:
        start, stop = places[first][0], places[behind - 1][1]
        if behind < len(places):
            stop += len(text[stop : places[behind][0]].split("\n", 1)[0])
        else:
            stop += len(text[stop:].split("\n", 1)[0])
        kept.append(text[at : max(start, at)])
        at = max(stop, at)
    result = "".join([*kept, text[at:]])
    return result, len(text) - len(result)


class SpanFinder:
    """Documents in, repeated spans out. `folder` is emptied, holds 8 bytes per word and about 1.5 more, and is removed at the end.

    `memory` bounds its buffers in bytes; 8 bytes per document come on top, and the kernel caches what it can of the words.
    """

    def __init__(self, folder: str | Path, span_words: int = 50, memory: int = 64 << 20) -> None:
        if span_words < 4:
            raise InputError(f"spans: of {span_words} words; 4 or more are needed")
        if memory < LEAST_MEMORY:
            raise InputError(f"spans: {memory} bytes of memory; {LEAST_MEMORY} or more are needed")
        self.folder, self.span_words, self.memory = Path(folder), span_words, memory
        self.k = span_words // 2
        self.starts = array("q", [0])
        self.runs: list[Path] = []
        self.words: list[np.ndarray] = []
        self.marks: list[tuple[np.ndarray, np.ndarray]] = []
        self.waiting = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def add(self, hashes: np.ndarray) -> None:
        """The next document's word hashes: uint64 [words]."""
        if len(hashes) > PLACE_MASK:
            raise InputError(f"spans: a document of {len(hashes)} words; {PLACE_MASK} are allowed")
        marks, places = np.empty(len(hashes), np.uint64), np.empty(len(hashes), np.int64)
        count = winnow(hashes, self.k, self.span_words - self.k + 1, marks, places)
        document = len(self.starts) - 1
        self.marks.append((marks[:count].copy(), places[:count] | document << PLACE_BITS))
        self.words.append(hashes)
        self.starts.append(self.starts[-1] + len(hashes))
        self.waiting += 8 * len(hashes) + 64 * count + 400
        if self.waiting >= self.memory // 2:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if not self.words:
            return
        with open(self.folder / "words.bin", "ab") as file:
            for one in self.words:
                file.write(np.ascontiguousarray(one).data)
        self.runs.append(self.folder / f"marks-{len(self.runs):05d}.bin")
        write_run(self.runs[-1], *(np.concatenate(columns) for columns in zip(*self.marks, strict=True)))
        self.words, self.marks, self.waiting = [], [], 0

    def settle(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each document with repeated spans, in order: its number, and int64 [n, 4]: first word, word behind the last, document, its word.

        Spans are those of `span_words` words or more that stand in the earlier document named, as long as they can be made.
        """
        self.flush()
        try:
            starts = np.array(self.starts, np.int64)
            if starts[-1]:
                yield from self.spans(np.asarray(np.memmap(self.folder / "words.bin", np.uint64, "r")), starts)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def spans(self, words: np.ndarray, starts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The spans of each document, from its meetings."""
        for document, places, firsts in self.meetings():
            spans = np.empty((len(places), 4), np.int64)
            count = follow(words, starts, document, places, firsts >> PLACE_BITS, firsts & PLACE_MASK, self.k, self.span_words, spans)
            if count:
                yield document, np.unique(spans[:count], axis=0)

    def meetings(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Per document, in order: the places of samples that earlier documents have, and where the first and the last of them do."""
        stretch = max(1024, self.memory // 128)
        runs: list[Path] = []
        open_key, open_first, open_last = -1, 0, 0
        for keys, numbers, _ in merged(self.runs, stretch):
            heads = np.concatenate([[True], keys[1:] != keys[:-1]])
            starts = np.flatnonzero(heads)
            first = np.repeat(numbers[starts], np.diff(np.append(starts, len(keys))))
            last = np.where(heads, numbers, np.roll(numbers, 1))
            if open_key == int(keys[0]):
                first[: len(keys) if len(starts) == 1 else starts[1]] = open_first
                last[0] = open_last
            open_key, open_first, open_last = int(keys[-1]), int(first[-1]), int(numbers[-1])
            document = numbers >> PLACE_BITS
            by_first = first >> PLACE_BITS < document
            by_last = (last >> PLACE_BITS < document) & (last != first)
            if by_first.any():
                runs.append(self.folder / f"meetings-{len(runs):05d}.bin")
                met = np.concatenate([numbers[by_first], numbers[by_last]]).view(np.uint64)
                write_run(runs[-1], met, np.concatenate([first[by_first], last[by_last]]))
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for keys, firsts, _ in merged(runs, stretch) if runs else ():
            places = keys.view(np.int64)
            documents = places >> PLACE_BITS
            bounds = [0, *(np.flatnonzero(documents[1:] != documents[:-1]) + 1).tolist(), len(places)]
            for start, stop in itertools.pairwise(bounds):
                if waiting and waiting[-1][0][-1] >> PLACE_BITS != documents[start]:
                    yield self.one_document(waiting)
                    waiting = []
                waiting.append((places[start:stop], firsts[start:stop]))
        if waiting:
            yield self.one_document(waiting)

    @staticmethod
    def one_document(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, np.ndarray, np.ndarray]:
        places, firsts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return int(places[0] >> PLACE_BITS), places & PLACE_MASK, firsts
