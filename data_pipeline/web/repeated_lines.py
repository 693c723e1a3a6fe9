"""Lines that stand on many pages, of one site or of the whole crawl: notices and menus that the extraction did not recognise.

Two passes over the pages. The first counts in how many documents each line stands: `line_hashes` of every document go into a
`LineCounter`, which counts exactly, from sorted runs on disk. The second takes the frequent ones out of the kept texts. Lines are equal
when they differ in white space only.
"""

import itertools
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from pydantic import Field, field_validator

from data_pipeline.errors import InputError
from data_pipeline.recipe import Section
from data_pipeline.web.duplicates.runs import merged, write_run

LEAST_MEMORY = 1 << 14


class LineRules(Section):
    """[web.lines]: lines that recur in many documents are taken out of the texts; off by default."""

    documents: int = Field(default=0, ge=0, description="a line that stands in this many documents is taken out; 0: none is")
    words: int = Field(default=4, ge=1, le=1000, description="shorter lines always stay: headings and code recur for good reasons")
    unit: Literal["line", "paragraph"] = Field(default="line", description="paragraph: lines up to the next empty one are one")
    scope: Literal["site", "crawl"] = Field(default="site", description="whether documents are counted per site or over the whole crawl")
    keep_first: bool = Field(default=False, description="whether the first document that has the line keeps it")

    @field_validator("documents")
    @classmethod
    def more_than_one(cls, documents: int) -> int:
        if documents == 1:
            raise ValueError("every line stands in one document; 2 or more, or 0 for none, is needed")
        return documents


@dataclass(frozen=True)
class Frequent:
    """The lines that are taken out: hashes, rising (uint64 [n]), in how many documents each stands, and in which first (int64 [n])."""

    hashes: np.ndarray
    counts: np.ndarray
    first: np.ndarray

    @cached_property
    def by_first(self) -> tuple[np.ndarray, np.ndarray]:
        """The hashes in the order of their first documents, and those documents: rising."""
        order = np.argsort(self.first, kind="stable")
        return self.hashes[order], self.first[order]

    def spared(self, document: int) -> frozenset[int]:
        """The hashes of the lines that this document is the first to have."""
        hashes, documents = self.by_first
        start, stop = np.searchsorted(documents, [document, document + 1])
        return frozenset(hashes[start:stop].tolist())


def units(lines: list[str], unit: str) -> Iterator[tuple[int, int, list[str]]]:
    """Each line, or each paragraph, that is not empty: its first line, the line behind its last, and its words."""
    if unit == "line":
        for place, line in enumerate(lines):
            if words := line.split():
                yield place, place + 1, words
        return
    for empty, group in itertools.groupby(range(len(lines)), key=lambda place: not lines[place].strip()):
        if not empty:
            places = list(group)
            yield places[0], places[-1] + 1, [word for place in places for word in lines[place].split()]


def hashed_units(text: str, rules: LineRules, site: str) -> tuple[list[str], list[tuple[int, int]], np.ndarray]:
    """The text's lines, where its long enough units are, and their hashes, uint64."""
    seed = xxhash.xxh3_64_intdigest(site.encode("utf-8", "surrogatepass")) if rules.scope == "site" else 0
    lines = text.split("\n")
    places, hashes = [], []
    for start, stop, words in units(lines, rules.unit):
        if len(words) >= rules.words:
            places.append((start, stop))
            hashes.append(xxhash.xxh3_64_intdigest(" ".join(words).encode("utf-8", "surrogatepass"), seed=seed))
    return lines, places, np.array(hashes, np.uint64)


def line_hashes(text: str, rules: LineRules, site: str = "") -> np.ndarray:
    """The hashes of the text's distinct lines that are long enough, rising: uint64 [n]. `site` matters where the scope is the site."""
    return np.unique(hashed_units(text, rules, site)[2])


def strip_repeated(text: str, frequent: np.ndarray, rules: LineRules, site: str = "", spared: Set[int] = frozenset()) -> tuple[str, int]:
    """The text without its frequent lines, and how many characters it lost. `frequent` is rising; `spared` hashes stay.

    Every occurrence goes, with one of the two empty lines that would then stand together. A text without a frequent line stays as it is.
    """
    lines, places, hashes = hashed_units(text, rules, site)
    if not len(hashes) or not len(frequent):
        return text, 0
    at = np.minimum(np.searchsorted(frequent, hashes), len(frequent) - 1)
    hit = [bool(found) and int(one) not in spared for found, one in zip(frequent[at] == hashes, hashes, strict=True)]
    if not any(hit):
        return text, 0
    gone = {place for found, (start, stop) in zip(hit, places, strict=True) if found for place in range(start, stop)}
    kept: list[str] = []
    behind_gap = False  # whether a line was taken out directly before
    for place, line in enumerate(lines):
        if place in gone:
            behind_gap = True
        elif behind_gap and not line.strip() and (not kept or not kept[-1].strip()):
            continue
        else:
            kept.append(line)
            behind_gap = False
    while kept and not kept[-1].strip() and lines[-1].strip():
        kept.pop()
    result = "\n".join(kept)
    return result, len(text) - len(result)


class LineCounter:
    """Counts in how many documents each hash stands, exactly. `memory` bounds its buffers in bytes; `folder` is emptied, later removed."""

    def __init__(self, folder: str | Path, memory: int = 64 << 20) -> None:
        if memory < LEAST_MEMORY:
            raise InputError(f"lines: {memory} bytes of memory; {LEAST_MEMORY} or more are needed")
        self.folder, self.memory = Path(folder), memory
        self.documents = 0
        self.runs: list[Path] = []
        self.waiting: list[tuple[int, np.ndarray]] = []
        self.waiting_hashes = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def add(self, hashes: np.ndarray) -> None:
        """The next document's distinct hashes: uint64 [n]."""
        if len(hashes):
            self.waiting.append((self.documents, hashes))
            self.waiting_hashes += len(hashes)
        self.documents += 1
        if self.waiting_hashes * 64 + len(self.waiting) * 256 >= self.memory // 2:
            self.flush()

    def flush(self) -> None:
        """Writes what waits as one sorted run."""
        if not self.waiting:
            return
        hashes = np.concatenate([one for _, one in self.waiting]).astype(np.uint64, copy=False)
        documents = np.repeat([document for document, _ in self.waiting], [len(one) for _, one in self.waiting]).astype(np.int64)
        self.waiting, self.waiting_hashes = [], 0
        self.runs.append(self.folder / f"run-{len(self.runs):05d}.bin")
        write_run(self.runs[-1], hashes, documents)

    def settle(self, at_least: int) -> Frequent:
        """The hashes that stand in `at_least` documents or more (2 or more are asked for). Removes the folder."""
        if at_least < 2:
            raise InputError(f"lines: in {at_least} documents; 2 or more make a line frequent")
        self.flush()
        try:
            found = [column for column in self.frequent(at_least) if len(column[0])]
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if not found:
            return Frequent(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        return Frequent(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def frequent(self, at_least: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Hashes, counts and first documents of the frequent ones, stretch by stretch; the last hash of a stretch waits for the next."""
        open_hash, open_count, open_first = None, 0, 0
        for hashes, documents, _ in merged(self.runs, max(1024, self.memory // 128)) if self.runs else ():
            starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
            keys, counts, first = hashes[starts], np.diff(np.append(starts, len(hashes))), documents[starts]
            if open_hash is not None:
                if int(keys[0]) == open_hash:
                    counts[0] += open_count
                    first[0] = open_first
                else:
                    keys, counts, first = np.insert(keys, 0, open_hash), np.insert(counts, 0, open_count), np.insert(first, 0, open_first)
            open_hash, open_count, open_first = int(keys[-1]), int(counts[-1]), int(first[-1])
            often = counts[:-1] >= at_least
            yield keys[:-1][often], counts[:-1][often], first[:-1][often]
        if open_hash is not None and open_count >= at_least:
            yield np.array([open_hash], np.uint64), np.array([open_count], np.int64), np.array([open_first], np.int64)
