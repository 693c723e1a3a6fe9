"""What one pass over the ledger counts: outcomes, reasons, domains, files, languages and a histogram of every measured value.

Memory: the tallies go with the number of different domains and files, everything else is fixed; see `benchmarks/data_report.py`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_pipeline.web.funnel import STEPS, step_of
from data_pipeline.web.report import sketch
from data_pipeline.web.report.ledger_table import Ledger, Rows, filled
from data_pipeline.web.report.tally import Tally
from data_pipeline.web.tables import PERSONAL

EXACT = 4096  # different values of a reason that are counted one by one: status codes, numbers of words
KEPT, DROPPED_ELSE, DROPPED_BY_IT = range(3)  # what became of a page, seen from one measured value
SUMS = ("documents", "html_bytes", "text_bytes", "words", "passed", "kept", "kept_text_bytes", "clean_text_bytes")
TALLIED = ("file", "domain", "language", "extraction", "snapshot", "licence", "robots", "quality_kind")
AFTER_RULES = list(STEPS).index("kept by the quality model")  # the last step that looks at a page alone


@dataclass
class Reason:
    """The pages that one measure dropped for one reason."""

    documents: int = 0
    html_bytes: int = 0
    text_bytes: int = 0
    words: int = 0
    thresholds: Counter[float] = field(default_factory=Counter)
    values: np.ndarray = field(default_factory=lambda: np.zeros(sketch.SIZE, np.int64))
    exact: Counter[float] | None = field(default_factory=Counter)  # None once there are too many different values: the sketch suffices

    def add(self, values: np.ndarray) -> None:
        self.values += np.bincount(sketch.buckets_of(values), minlength=sketch.SIZE)
        if self.exact is not None:
            found, counts = np.unique(values, return_counts=True)
            self.exact.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            self.exact = self.exact if len(self.exact) <= EXACT else None

    def quantile(self, share: float) -> float | None:
        if self.exact is None:
            return sketch.quantile(self.values, share)
        ordered = sorted(self.exact.items())
        sums = np.cumsum([count for _, count in ordered])
        return ordered[int(np.searchsorted(sums, share * (sums[-1] - 1), side="right"))][0] if ordered else None


@dataclass
class Survey:
    """The counts."""

    outcomes: dict[str, dict[str, int]]
    reasons: dict[tuple[str, str], Reason]
    tallies: dict[str, Tally]
    histograms: dict[str, np.ndarray]  # int64 [3, sketch.SIZE] per measured value
    whole_numbers: set[str]
    personal: dict[str, int]
    benchmarks: Counter[str]
    removed: dict[str, int]  # with repeated lines: text_bytes and words of pages that stay, which their outcome does not count
    second_opinions: int
    missing: list[str]  # columns that this build's ledger does not have


def passed_rules(reason: str) -> bool:
    """Whether a page dropped for this reason had passed every rule that looks at one page alone."""
    return list(STEPS).index(step_of(reason)) > AFTER_RULES


def survey(ledger: Ledger, expected: list[str]) -> Survey:
    """One pass; `expected` are the columns that a ledger of today has."""
    measures = ledger.measures()
    found = Survey(
        {name: dict.fromkeys(SUMS[:4], 0) for name in ("kept", "held_out", "dropped", "clean")},
        {},
        {name: Tally(name, SUMS) for name in TALLIED if name in ledger.names},
        {name: np.zeros((3, sketch.SIZE), np.int64) for name in measures},
        {name for name in measures if ledger.whole_numbers(name)},
        {kind: 0 for kind in PERSONAL if f"personal_{kind}" in ledger.names},
        Counter(),
        {"text_bytes": 0, "words": 0},
        0,
        [name for name in expected if name not in ledger.names],
    )
    columns = [*measures, *TALLIED, "outcome", "clean", "reason", "measure", "value", "threshold", "contamination", "second_language"]
    columns += ["removed_bytes", "removed_words"]
    for rows in ledger.batches([*columns, *(f"personal_{kind}" for kind in found.personal)]):
        count(found, rows)
    return found


def count(found: Survey, rows: Rows) -> None:
    """One batch."""
    sums = sums_of(rows)
    clean = rows.flags("clean") & (sums["kept"] > 0)
    removed = {"text_bytes": rows.counts("removed_bytes"), "words": rows.counts("removed_words")}
    left = sums | {name: sums[name] - lost for name, lost in removed.items()}
    for name in ("kept", "held_out", "dropped"):
        add_up(found.outcomes[name], left, rows.equals("outcome", name))
    add_up(found.outcomes["clean"], left, clean)
    for name, lost in removed.items():
        found.removed[name] += int(lost.sum())
    for name, tally in found.tallies.items():
        tally.add(rows.strings(name), sums)
    count_reasons(found, rows, sums)
    count_values(found, rows)
    stays = ~rows.equals("outcome", "dropped")
    for kind in found.personal:
        found.personal[kind] += int(rows.counts(f"personal_{kind}")[stays].sum())
    found.second_opinions += int((~rows.equals("second_language", "")).sum())
    count_benchmarks(found, rows)


def sums_of(rows: Rows) -> dict[str, np.ndarray]:
    """The summed columns: int64 [rows] each."""
    kept = rows.equals("outcome", "kept")
    codes, reasons = rows.codes("reason")
    passed = np.array([not reason or passed_rules(reason) for reason in reasons])[codes]
    texts = rows.counts("text_bytes")
    left = texts - rows.counts("removed_bytes")
    return {
        "documents": np.ones(rows.size, np.int64),
        "html_bytes": rows.counts("html_bytes"),
        "text_bytes": texts,
        "words": rows.counts("words"),
        "passed": passed.astype(np.int64),
        "kept": kept.astype(np.int64),
        "kept_text_bytes": left * kept,
        "clean_text_bytes": left * (kept & rows.flags("clean")),
    }


def add_up(total: dict[str, int], sums: dict[str, np.ndarray], mask: np.ndarray) -> None:
    for name in total:
        total[name] += int(sums[name][mask].sum())


def count_reasons(found: Survey, rows: Rows, sums: dict[str, np.ndarray]) -> None:
    """The dropped pages of a batch, by reason and measure."""
    reason_codes, reasons = rows.codes("reason")
    measure_codes, measures = rows.codes("measure")
    pairs = reason_codes * len(measures) + measure_codes
    dropped = rows.equals("outcome", "dropped")
    values, thresholds = rows.floats("value"), rows.floats("threshold")
    for pair in np.unique(pairs[dropped]).tolist():
        here = np.flatnonzero(dropped & (pairs == pair))
        entry = found.reasons.setdefault((reasons[pair // len(measures)], measures[pair % len(measures)]), Reason())
        for name in SUMS[:4]:
            setattr(entry, name, getattr(entry, name) + int(sums[name][here].sum()))
        entry.thresholds.update(one for one in thresholds[here].tolist() if one == one)  # not NaN
        told = values[here]
        entry.add(told[~np.isnan(told)])


def count_values(found: Survey, rows: Rows) -> None:
    """Every measured value of a batch into its histogram, by what became of the page."""
    dropped = rows.equals("outcome", "dropped")
    codes, measures = rows.codes("measure")
    for name, histogram in found.histograms.items():
        values = rows.floats(name)
        by_it = codes == measures.index(name) if name in measures else np.zeros(rows.size, bool)
        kinds = np.where(dropped, np.where(by_it, DROPPED_BY_IT, DROPPED_ELSE), KEPT)
        told = ~np.isnan(values)
        places = kinds[told] * sketch.SIZE + sketch.buckets_of(values[told])
        histogram += np.bincount(places, minlength=3 * sketch.SIZE).reshape(3, -1)


def count_benchmarks(found: Survey, rows: Rows) -> None:
    """How many pages hold an item of each benchmark."""
    for one in filled(rows.strings("contamination")).to_pylist():
        found.benchmarks.update({line.partition(":")[0] for line in one.split("\n")})


def reason_rows(found: Survey) -> list[dict[str, Any]]:
    """reasons.parquet: a row per reason and measure, the commonest first, with quantiles of the measured value."""
    rows = []
    for (reason, measure), entry in found.reasons.items():
        thresholds = sorted(entry.thresholds)
        rows.append(
            {
                "reason": reason,
                "measure": measure,
                "step": step_of(reason),
                "documents": entry.documents,
                "html_bytes": entry.html_bytes,
                "text_bytes": entry.text_bytes,
                "words": entry.words,
                "threshold": thresholds[0] if thresholds else None,
                "last_threshold": thresholds[-1] if thresholds else None,
                **{f"value_{name}": number(entry.quantile(share)) for name, share in (("p05", 0.05), ("p50", 0.5), ("p95", 0.95))},
            }
        )
    return sorted(rows, key=lambda row: (-row["documents"], row["reason"], row["measure"]))


def number(value: float | None) -> float | None:
    """A number as stored: at most six digits; None where there is none."""
    return None if value is None or value != value else float(f"{value:.6g}")
