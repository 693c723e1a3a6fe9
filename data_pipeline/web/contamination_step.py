"""Decontamination inside a build: hits are stored with each page, and judged when all pages are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline.web.decontamination.decide import Found, Verdicts, decide
from data_pipeline.web.decontamination.index import NO_HITS, BenchmarkIndex, Hits
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.decontamination.report import write_contamination

if TYPE_CHECKING:
    from data_pipeline.web.settle import Crawl


def fingerprint_of(settings: Decontamination) -> list[Any]:
    """What decides the stored hits: the benchmarks' n-grams, and what is looked for around them."""
    if not settings.benchmarks:
        return []
    index = BenchmarkIndex.build(settings.benchmarks, settings)
    return [index.fingerprint, settings.near_coverage, settings.answer_words, settings.answer_window]


def stored(hits: Hits) -> bytes:
    """Hits as bytes: int32, how many n-grams, their numbers, the items; nothing where there are none."""
    if not len(hits.grams):
        return b""
    return np.concatenate([[len(hits.grams)], hits.grams, hits.answers]).astype("<i4").tobytes()


def read_hits(data: bytes | None) -> Hits:
    if not data:
        return NO_HITS
    count, *_ = numbers = np.frombuffer(data, "<i4")
    return Hits(numbers[1 : count + 1], numbers[count + 1 :])


@dataclass(frozen=True)
class PageHits:
    """The hits of the given pages, in their order; may be gone through again."""

    crawl: "Crawl"
    rows: np.ndarray

    def __iter__(self) -> Iterator[Hits]:
        for _, batch in self.crawl.of_rows(self.rows, "hits"):
            yield from map(read_hits, batch.column(0).to_pylist())


@dataclass(frozen=True)
class Contamination:
    """What was found among the pages `rows`."""

    index: BenchmarkIndex
    verdicts: Verdicts
    rows: np.ndarray

    @classmethod
    def find(cls, settings: Decontamination, crawl: "Crawl", rows: np.ndarray) -> "Contamination":
        index = BenchmarkIndex.build(settings.benchmarks, settings)
        return cls(index, decide(index, PageHits(crawl, rows), settings), rows)

    def pages(self) -> dict[int, Found]:
        """Place in the crawl -> the strongest item on the page."""
        return {int(self.rows[number]): found[0] for number, found in sorted(self.verdicts.pages.items())}

    def labels(self) -> dict[int, str]:
        """Place in the crawl -> a line "task:item" for each item on the page."""
        names = self.index.names
        return {
            int(self.rows[number]): "\n".join(f"{names[one.item].task}:{names[one.item].id}" for one in found)
            for number, found in self.verdicts.pages.items()
        }

    def write(self, folder: Path, crawl: "Crawl") -> None:
        """contamination.json, hits.jsonl and split/ for `phial eval --split`."""
        told = np.array(sorted({*self.verdicts.pages, *self.verdicts.near}), np.int64)
        ids: dict[int, str] = {}
        for numbers, batch in crawl.of_rows(self.rows[told], "id"):
            ids.update(zip(told[numbers].tolist(), batch.column(0).to_pylist(), strict=True))
        write_contamination(folder, self.index, self.verdicts, ids.__getitem__, len(self.rows))
