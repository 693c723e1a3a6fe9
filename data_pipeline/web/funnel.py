"""The funnel: how many documents, bytes and words were left after each step, what was dropped and why, with sample pages."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.web.tables import PERSONAL

# The step at which each reason drops; reasons that are not named here are quality rules.
STEPS = {
    "read": ("http_status", "not_html", "too_large", "revisit"),
    "from allowed addresses": ("blocked_domain", "blocked_words", "blocked_address", "address_scheme", "noindex"),
    "extracted": ("extraction_killed", "no_text"),
    "in a kept language": ("language",),
    "pass the quality rules": (),
    "kept by the quality model": ("low_quality", "unwanted_kind"),
    "one page per address": ("same_address",),
    "no exact duplicates": ("exact_duplicate",),
    "no near duplicates": ("near_duplicate",),
    "without benchmark items": ("contaminated",),
    "with text beside repeated lines": ("repeated_lines",),
}
RULES = "pass the quality rules"
SAMPLE_CHARACTERS = 240


class Funnel:
    """Counts rows as they are routed, batch by batch."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.broken: list[str] = []
        self.records = 0
        self.html_bytes = 0
        self.text_bytes = 0
        self.words = 0
        self.dropped: dict[str, dict[str, Any]] = {}
        self.languages: Counter[str] = Counter()
        self.extraction: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self.kept = Counter({"documents": 0, "text_bytes": 0, "words": 0})
        self.clean = Counter({"documents": 0, "text_bytes": 0, "words": 0})
        self.held_out = Counter({"documents": 0, "text_bytes": 0, "words": 0})

    def count(self, batch: pa.RecordBatch) -> None:
        """The routed rows of one batch."""
        texts, words = numbers(batch, "text_bytes"), numbers(batch, "words")
        outcome, reason = strings(batch, "outcome"), strings(batch, "reason")
        left_texts, left_words = texts - numbers(batch, "removed_bytes"), words - numbers(batch, "removed_words")
        self.records += batch.num_rows
        self.html_bytes += int(numbers(batch, "html_bytes").sum())
        self.text_bytes += int(texts.sum())
        self.words += int(words.sum())
        self.languages.update(Counter(name or "none" for name in strings(batch, "language").tolist()))
        self.extraction.update(Counter(strings(batch, "extraction").tolist()))
        clean = batch.column("clean").to_numpy(zero_copy_only=False)
        for total, mask in (
            (self.kept, outcome == "kept"),
            (self.held_out, outcome == "held_out"),
            (self.clean, (outcome == "kept") & clean),
        ):
            total.update({"documents": int(mask.sum()), "text_bytes": int(left_texts[mask].sum()), "words": int(left_words[mask].sum())})
        for kind in PERSONAL:
            self.personal[kind] += int(numbers(batch, f"personal_{kind}")[outcome != "dropped"].sum())
        for name in dict.fromkeys(reason[reason != ""].tolist()):
            self.drop(name, batch, np.flatnonzero(reason == name), texts, words)

    def drop(self, reason: str, batch: pa.RecordBatch, rows: np.ndarray, texts: np.ndarray, words: np.ndarray) -> None:
        """The rows of a batch that were dropped for one reason."""
        empty: dict[str, Any] = {"documents": 0, "text_bytes": 0, "words": 0, "measures": {}, "samples": []}
        entry = self.dropped.setdefault(reason, empty)
        entry["documents"] += len(rows)
        entry["text_bytes"] += int(texts[rows].sum())
        entry["words"] += int(words[rows].sum())
        for measure, count in Counter(strings(batch, "measure")[rows].tolist()).items():
            entry["measures"][measure] = entry["measures"].get(measure, 0) + count
        for row in rows[: max(self.samples - len(entry["samples"]), 0)].tolist():
            sample = {name: batch.column(name)[row].as_py() for name in ("url", "measure", "value", "threshold")}
            entry["samples"].append(sample | {"text": " ".join((batch.column("text")[row].as_py() or "").split())[:SAMPLE_CHARACTERS]})

    def record(self) -> dict[str, Any]:
        """funnel.json."""
        left = {"documents": self.records, "text_bytes": self.text_bytes, "words": self.words}
        steps = [{"step": "records", **left}]
        for step in STEPS:
            for reason, entry in self.dropped.items():
                if step_of(reason) == step:
                    left = {name: left[name] - entry[name] for name in left}
            steps.append({"step": step, **left})
        steps.append({"step": "kept for training", **self.kept})
        return {
            "format": 1,
            "html_bytes": self.html_bytes,
            "steps": steps,
            "dropped": {reason: {"step": step_of(reason), **self.dropped[reason]} for reason in sorted(self.dropped)},
            "kept": dict(self.kept),
            "clean": dict(self.clean),
            "held_out": dict(self.held_out),
            "personal_data": {kind: self.personal[kind] for kind in PERSONAL},
            "languages": dict(sorted(self.languages.items(), key=lambda item: (-item[1], item[0]))),
            "extraction": dict(sorted(self.extraction.items())),
            "broken_files": self.broken,
        }


def numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of counts: int64 [rows], 0 where nothing was measured."""
    return pc.fill_null(batch.column(name), 0).to_numpy(zero_copy_only=False)


def strings(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of strings as objects [rows]."""
    return pc.fill_null(batch.column(name), "").to_numpy(zero_copy_only=False)


def step_of(reason: str) -> str:
    return next((step for step, reasons in STEPS.items() if reason in reasons), RULES)
