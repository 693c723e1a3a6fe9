"""The histogram of each measured value as it is shown: few bars over the range where pages are, thresholds beside them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.report import sketch
from data_pipeline.web.report.survey import DROPPED_BY_IT, KEPT, Survey
from data_pipeline.web.rules import Maximum, rules_of, threshold_rules

BARS = 44
TAIL = 0.002  # of the pages lie in the first and the last bar, or beyond


@dataclass(frozen=True)
class Threshold:
    """A line in a histogram."""

    value: float
    side: str  # "at most" or "at least"
    clean: bool = False  # of the clean subset only


@dataclass(frozen=True)
class Histogram:
    """Bars of one measured value: edges float64 [bars + 1], counts int64 [3, bars] by what became of the pages."""

    name: str
    edges: np.ndarray
    counts: np.ndarray
    logarithmic: bool
    thresholds: list[Threshold]
    quantiles: dict[str, float | None]


def thresholds_of(found: Survey, recipe: WebRecipe | None) -> dict[str, list[Threshold]]:
    """Per measured value: the recipe's rules; thresholds that dropped pages and are in no rule come from the ledger."""
    lines: dict[str, list[Threshold]] = {}
    if recipe is not None:
        clean = {(type(rule), rule.measure): rule.threshold for rule in threshold_rules(recipe.clean)}
        for rule in rules_of(recipe):
            side = "at most" if isinstance(rule, Maximum) else "at least"
            one = lines.setdefault(rule.measure, [])
            one.append(Threshold(float(rule.threshold), side))
            strict = clean.get((type(rule), rule.measure))
            if strict is not None and strict != rule.threshold:
                one.append(Threshold(float(strict), side, clean=True))
        if recipe.languages:
            lines["language_distance"] = [Threshold(float(recipe.max_language_distance), "at most")]
    for (_, measure), entry in found.reasons.items():
        for value in sorted(entry.thresholds):
            known = lines.setdefault(measure, [])
            if all(line.value != value or line.clean for line in known):
                below = (entry.quantile(0.5) or 0.0) < value
                known.append(Threshold(value, "at least" if below else "at most"))
    return lines


def histogram(name: str, counts: np.ndarray, whole_numbers: bool, thresholds: list[Threshold]) -> Histogram | None:
    """The bars of a sketch, int64 [3, sketch.SIZE]; None where nothing was measured."""
    total = counts.sum(0)
    if not total.sum():
        return None
    low, middle, high = (sketch.quantile(total, share) for share in (TAIL, 0.5, 1 - TAIL))
    low, high = min([low, *(line.value for line in thresholds)]), max([high, *(line.value for line in thresholds)])
    logarithmic = low >= 0 and middle > 0 and high > 30 * middle and high > 100
    edges = edges_of(low, high, whole_numbers, logarithmic)
    bars = np.stack([bars_of(one, edges) for one in counts])
    told = {f"p{share * 100:02.0f}": sketch.quantile(total, share) for share in (0.05, 0.5, 0.95)}
    return Histogram(name, edges, bars, logarithmic, thresholds, {key: float(f"{value:.4g}") for key, value in told.items()})


def bars_of(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The counts of a sketch in other bins, int64 [bars]: a bucket that two bars share is divided; the outer bars take what lies beyond."""
    sums = np.interp(edges[1:-1], sketch.ENDS, np.concatenate([[0], np.cumsum(counts)]))
    return np.diff(np.concatenate([[0], np.rint(sums), [counts.sum()]])).astype(np.int64)


def edges_of(low: float, high: float, whole_numbers: bool, logarithmic: bool) -> np.ndarray:
    """The bars' edges; each small whole number has a bar of its own, and a log scale one for zero."""
    if whole_numbers and high - low <= BARS:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if logarithmic:
        first = max(low, high / 1e6, 1.0 if whole_numbers else 0.0)
        bars = first * (high * 1.02 / first) ** (np.arange(BARS + 1) / BARS)
        return np.concatenate([[0.0], bars]) if low < first else bars
    if 0 < low < (high - low) / 10:
        low = 0.0
    wide = (high - low) or max(abs(high), 1.0) / 10
    return low + wide * 1.02 * np.arange(BARS + 1) / BARS


def histograms(found: Survey, recipe: WebRecipe | None) -> list[Histogram]:
    """Of every measured value of the ledger, in the ledger's order."""
    lines = thresholds_of(found, recipe)
    drawn = [histogram(name, counts, name in found.whole_numbers, lines.get(name, [])) for name, counts in found.histograms.items()]
    return [one for one in drawn if one is not None]


def histogram_rows(drawn: list[Histogram]) -> list[dict[str, Any]]:
    """measures.parquet: a row per bar."""
    return [
        {
            "measure": one.name,
            "low": float(one.edges[bar]),
            "high": float(one.edges[bar + 1]),
            "kept": int(one.counts[KEPT, bar]),
            "dropped_by_it": int(one.counts[DROPPED_BY_IT, bar]),
            "dropped": int(one.counts[KEPT + 1 :, bar].sum()),
        }
        for one in drawn
        for bar in range(one.counts.shape[1])
    ]
