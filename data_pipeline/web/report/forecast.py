"""What a whole crawl will give, from a sample of it: documents, text and tokens with 95 % intervals, and what duplicates take away.

A figure of the crawl is its size times a ratio of sums over the sample. Pages of one file, or of one domain, resemble each other, so whole
files or domains are resampled: a bootstrap-t of the ratio (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12) with
the linearised standard error of Cochran, Sampling Techniques, 1977, section 6.4, and his finite population correction, the root of 1 - f.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_pipeline.web.report.duplicates_of_whole import Multiplicities, whole_crawl
from data_pipeline.web.report.options import ReportOptions

CONFIDENCE = 0.95
FILES = 8  # fewer clusters than this say too little of how they differ
GROUPS = 2000  # more domains than this are put together at random
SLICE = 100_000
PAGES = ("documents", "passed", "kept")  # figures that cannot be more than the pages
COLUMNS = ("documents", "html_bytes", "passed", "kept", "kept_text_bytes", "clean_text_bytes")


@dataclass(frozen=True)
class Sample:
    """Sums over each resampled unit, float64 [units] per name of `COLUMNS`, and what the unit is."""

    unit: str  # "file", "domain" or "group of domains"
    sums: dict[str, np.ndarray]

    @property
    def units(self) -> int:
        return len(self.sums["documents"])

    def total(self, name: str) -> float:
        return float(self.sums[name].sum())


def sample_of(files: pa.Table | None, domains: pa.Table | None, seed: int) -> Sample:
    """Files where there are eight or more, else domains, many of them in random groups; the finer of both where neither are many."""
    if files is not None and files.num_rows >= FILES:
        return Sample("file", {name: files.column(name).to_numpy().astype(float) for name in COLUMNS})
    table, unit = (domains, "domain") if domains is not None else (files, "file")
    if table is None:
        return Sample("file", {name: np.zeros(0) for name in COLUMNS})
    sums = {name: table.column(name).to_numpy().astype(float) for name in COLUMNS}
    if table.num_rows <= GROUPS:
        return Sample(unit, sums)
    groups = np.empty(table.num_rows, np.int64)
    for start in range(0, table.num_rows, SLICE):
        keys = table.column(0).slice(start, SLICE).to_pylist()
        groups[start : start + len(keys)] = [
            xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"), seed=seed) % GROUPS for key in keys
        ]
    return Sample("group of domains", {name: np.bincount(groups, column, GROUPS) for name, column in sums.items()})


def ratio_interval(tops: np.ndarray, bottoms: np.ndarray, share: float, resamples: int, seed: int) -> tuple[float, float, float]:
    """(ratio, low, high) of sum(tops) / sum(bottoms) over independent units, at 95 %; `share` is the sample's of the whole.

    Infinite where there is one unit only: it does not say how units differ.
    """
    units, whole = len(tops), float(bottoms.sum())
    ratio = float(tops.sum()) / whole if whole else 0.0
    if units < 2 or not whole:
        return ratio, 0.0, float("inf")
    columns = np.stack([bottoms, tops, bottoms * bottoms, bottoms * tops, tops * tops], axis=1)
    spread = error_of(columns.sum(0), units, ratio)
    if spread == 0:
        return ratio, ratio, ratio
    chance = np.random.default_rng(seed)
    scores = []
    for start in range(0, resamples, 100):
        weights = chance.multinomial(units, np.full(units, 1 / units), min(100, resamples - start))
        sums = weights @ columns
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = sums[:, 1] / sums[:, 0]
            scores.append((ratios - ratio) / error_of(sums.T, units, ratios))
    found = np.concatenate(scores)
    low, high = np.quantile(found[np.isfinite(found)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    narrowed = spread * np.sqrt(max(1 - share, 0.0))
    return ratio, max(ratio - float(high) * narrowed, 0.0), ratio - float(low) * narrowed


def error_of(sums: np.ndarray, units: int, ratio: Any) -> Any:
    """The linearised standard error of a ratio from the sums of x, y, x², xy, y² over the units."""
    squares = np.maximum(sums[4] - 2 * ratio * sums[3] + ratio * ratio * sums[2], 0)
    return np.sqrt(units / (units - 1) * squares) / sums[0]


def forecast(sample: Sample, found: Multiplicities, options: ReportOptions, bytes_per_token: float) -> dict[str, Any] | None:
    """The whole crawl's figures; None where the sample has no page.

    Each of `figures` has `sample`, `value` with `low` and `high` (in proportion, at 95 %), and where duplicates matter `corrected_low` and
    `corrected_high`, which hold the duplicates that a larger crawl has more of.
    """
    pages, html = sample.total("documents"), sample.total("html_bytes")
    if not pages:
        return None
    if options.crawl_bytes is not None and html:
        base, size, by = "html_bytes", float(options.crawl_bytes), "bytes"
    elif options.crawl_pages is not None:
        base, size, by = "documents", float(options.crawl_pages), "pages"
    else:
        base, size, by = "documents", round(pages / options.sample_share), "share"
    share = min(sample.total(base) / size, 1.0)
    duplicates = whole_crawl(found, share)
    low, high = (duplicates["low"] / duplicates["sample"], duplicates["high"] / duplicates["sample"]) if duplicates else (1.0, 1.0)
    figures = {}
    for name, column, scale, shrinks in (
        ("pages", "documents", 1.0, False),
        ("html_bytes", "html_bytes", 1.0, False),
        ("documents_that_pass_the_rules", "passed", 1.0, False),
        ("kept_documents", "kept", 1.0, True),
        ("kept_text_bytes", "kept_text_bytes", 1.0, True),
        ("kept_tokens", "kept_text_bytes", 1 / bytes_per_token, True),
        ("clean_tokens", "clean_text_bytes", 1 / bytes_per_token, True),
    ):
        ratio, least, most = ratio_interval(sample.sums[column], sample.sums[base], share, options.resamples, options.seed)
        if column in PAGES and base == "documents":
            most = min(most, 1.0)
        one = {
            "sample": sample.total(column) * scale,
            "value": ratio * size * scale,
            "low": least * size * scale,
            "high": most * size * scale,
        }
        if shrinks:
            one |= {"corrected_low": one["low"] * low, "corrected_high": one["high"] * high}
        figures[name] = {key: None if value == float("inf") else float(value) for key, value in one.items()}
    return {
        "kind": "forecast",
        "size_by": by,
        "assumed": by == "share",
        "whole_pages": figures["pages"]["value"],
        "sample_share": share,
        "confidence": CONFIDENCE,
        "unit": sample.unit,
        "units": sample.units,
        "largest_unit": float(sample.sums["documents"].max()) / pages,
        "figures": figures,
        "duplicates": duplicates,
    }
