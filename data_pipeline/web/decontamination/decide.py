"""From the hits of all pages to verdicts: which pages hold a benchmark item, and which items were found.

An n-gram on more than `max_document_frequency` pages is common language and no evidence, unless the item stands there whole. That can
be known only when all pages have been read; so pages are matched first and judged at the end. Only hits are kept, so memory grows with what
was found and not with the crawl.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.web.decontamination.index import BenchmarkIndex, Hits
from data_pipeline.web.decontamination.recipe import Decontamination

REASONS = ("exact", "whole", "coverage", "answer", "near")


@dataclass(frozen=True, kw_only=True)
class Found:
    """An item on a page. `reason`: an exact long n-gram, the whole item, coverage, a near hit beside the answer; `near` is only noted."""

    item: int
    reason: str
    long_grams: int
    short_grams: int
    coverage: float


@dataclass
class Verdicts:
    """`pages`: page number -> the items it holds, the strongest first; `near`: the same for pages with near hits; `dirty` bool [items]."""

    dirty: np.ndarray
    pages: dict[int, list[Found]] = field(default_factory=dict)
    near: dict[int, list[Found]] = field(default_factory=dict)
    common_grams: int = 0  # n-grams that the document frequency took out

    def contaminated(self, page: int) -> bool:
        return page in self.pages


def document_frequencies(index: BenchmarkIndex, all_hits: Iterable[Hits]) -> np.ndarray:
    """int64 [grams]: on how many pages each n-gram stands. Those of parts of a crawl may be added."""
    frequencies = np.zeros(len(index.keys), np.int64)
    for hits in all_hits:
        frequencies[hits.grams] += 1  # a page's numbers differ
    return frequencies


def decide(
    index: BenchmarkIndex, all_hits: Iterable[Hits], settings: Decontamination | None = None, frequencies: np.ndarray | None = None
) -> Verdicts:
    """Verdicts on pages 0, 1, 2... in the order of `all_hits`, which is read twice where `frequencies` are not given (so no iterator then).

    `settings` may have other thresholds than the index was built with, but not other lengths of n-grams.
    """
    settings = settings or index.settings
    if frequencies is None:
        frequencies = document_frequencies(index, all_hits)
    rare = frequencies <= settings.max_document_frequency
    verdicts = Verdicts(dirty=np.zeros(len(index.names), bool), common_grams=int((~rare).sum()))
    for page, hits in enumerate(all_hits):
        if not len(hits.grams):
            continue
        found = judge_page(index, hits.grams, rare[hits.grams], hits.answers, settings)
        evidence = [one for one in found if one.reason != "near"]
        if evidence:
            verdicts.pages[page] = evidence
            verdicts.dirty[[one.item for one in evidence]] = True
        elif found:
            verdicts.near[page] = found
    return verdicts


def judge_page(index: BenchmarkIndex, grams: np.ndarray, rare: np.ndarray, answers: np.ndarray, settings: Decontamination) -> list[Found]:
    """The items that these n-grams, int32 and rising, are evidence of or come near to; `rare` says which are not common language: bool."""
    found = {} if rare.all() else {one.item: one for one in whole_items(index, grams, settings)}
    for one in partial_items(index, grams[rare], answers, settings):
        if one.item not in found or REASONS.index(one.reason) < REASONS.index(found[one.item].reason):
            found[one.item] = one
    return sorted(found.values(), key=lambda one: (REASONS.index(one.reason), -one.coverage, one.item))


def whole_items(index: BenchmarkIndex, grams: np.ndarray, settings: Decontamination) -> list[Found]:
    """Items whose question stands on the page as good as whole; short ones, whose question with its answer does.

    Of an item that a hundred pages have copied every n-gram is common, and yet each of them holds it: common language is a part of an item.
    The answer does not count, since pages put the other options or a line of their own between; nor does the wording of the task.
    """
    items, longs, shorts = index.evidence(grams)
    shares = np.zeros(len(items))
    for place in np.flatnonzero(shorts >= settings.min_coverage_grams).tolist():
        shares[place] = share_of_question(index, int(items[place]), grams, settings.words)
    return [told("whole", items, longs, shorts, shares, place) for place in np.flatnonzero(shares >= settings.whole_coverage).tolist()]


def share_of_question(index: BenchmarkIndex, item: int, grams: np.ndarray, least: int) -> float:
    """The share of a question's own words that lie in these n-grams; 0 for an item with fewer than `least` words of its own."""
    own = index.own_words(item)
    question = int(index.lengths[item] - index.answer_lengths[item])
    if own[:question].sum() < least:
        question = len(own)
    wanted = int(own[:question].sum())
    return float(index.covered(item, grams)[:question].sum() / wanted) if wanted >= least else 0.0


def partial_items(index: BenchmarkIndex, grams: np.ndarray, answers: np.ndarray, settings: Decontamination) -> list[Found]:
    """Items of which these n-grams, none of them common, are evidence."""
    items, longs, shorts = index.evidence(grams)
    coverages = index.coverages(items, shorts, grams, settings.near_coverage)
    enough = shorts >= settings.min_coverage_grams
    beside = np.isin(items, answers)
    found = []
    for place in np.flatnonzero((longs > 0) | (coverages >= settings.near_coverage)).tolist():
        if longs[place]:
            reason = "exact"
        elif coverages[place] >= settings.coverage and enough[place]:
            reason = "coverage"
        elif beside[place] and enough[place]:
            reason = "answer"
        else:
            reason = "near"
        found.append(told(reason, items, longs, shorts, coverages, place))
    return found


def told(reason: str, items: np.ndarray, longs: np.ndarray, shorts: np.ndarray, coverages: np.ndarray, place: int) -> Found:
    numbers = {"long_grams": int(longs[place]), "short_grams": int(shorts[place]), "coverage": round(float(coverages[place]), 4)}
    return Found(item=int(items[place]), reason=reason, **numbers)
