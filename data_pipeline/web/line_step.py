"""Repeated lines inside a build: which lines are frequent among the pages that stay, and the texts without them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.web.measures import measure
from data_pipeline.web.repeated_lines import Frequent, LineCounter, LineRules, line_hashes, strip_repeated

if TYPE_CHECKING:
    from data_pipeline.web.settle import Crawl


@dataclass(frozen=True)
class LineStep:
    """The frequent lines among the pages `rows` (int64, rising places in the crawl)."""

    rules: LineRules
    rows: np.ndarray
    frequent: Frequent

    @classmethod
    def count(cls, rules: LineRules, crawl: "Crawl", rows: np.ndarray, scratch: Path) -> "LineStep":
        """Counts the lines of the given pages."""
        counter = LineCounter(scratch / "lines")
        for _, batch in crawl.of_rows(rows, "text", "domain"):
            for text, domain in zip(batch.column("text").to_pylist(), batch.column("domain").to_pylist(), strict=True):
                counter.add(line_hashes(text, rules, domain))
        return cls(rules, rows, counter.settle(rules.documents))

    def edit(self, place: int, text: str, domain: str) -> tuple[str, int]:
        """The text of the page at `place` without the frequent lines, and how many characters it lost."""
        number = int(np.searchsorted(self.rows, place))
        if number >= len(self.rows) or self.rows[number] != place:
            return text, 0
        spared = self.frequent.spared(number) if self.rules.keep_first else frozenset()
        return strip_repeated(text, self.frequent.hashes, self.rules, domain, spared)

    def emptied(self, crawl: "Crawl", least: int) -> tuple[np.ndarray, np.ndarray]:
        """The pages that are left with fewer than `least` words, and how many they have: int64 [pages] both."""
        rows, words = [], []
        for numbers, batch in crawl.of_rows(self.rows, "text", "domain"):
            texts, domains = batch.column("text").to_pylist(), batch.column("domain").to_pylist()
            for number, text, domain in zip(numbers.tolist(), texts, domains, strict=True):
                place = int(self.rows[number])
                edited, lost = self.edit(place, text, domain)
                if lost and (count := measure(edited)[0].words) < least:
                    rows.append(place)
                    words.append(count)
        return np.array(rows, np.int64), np.array(words, np.int64)
