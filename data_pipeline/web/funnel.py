"""The funnel: how many documents, bytes and words were left after each step, what was dropped and why, with sample pages."""

from collections import Counter
from typing import Any

from data_pipeline.web.tables import PERSONAL

# The step at which each reason drops; reasons that are not named here are quality rules.
STEPS = {
    "extracted": ("http_status", "not_html", "too_large", "revisit", "extraction_killed", "no_text"),
    "in a kept language": ("language",),
    "pass the quality rules": (),
    "no exact duplicates": ("exact_duplicate",),
    "no near duplicates": ("near_duplicate",),
}
RULES = "pass the quality rules"
SAMPLE_CHARACTERS = 240


class Funnel:
    """Counts rows as they are routed."""

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

    def count(self, row: dict[str, Any], held_out: bool) -> None:
        """One routed row."""
        size = {"documents": 1, "text_bytes": len(row["text"].encode("utf-8", "replace")), "words": row["words"] or 0}
        self.records += 1
        self.html_bytes += row["html_bytes"]
        self.text_bytes += size["text_bytes"]
        self.words += size["words"]
        self.languages[row["language"] or "none"] += 1
        self.extraction[row["extraction"]] += 1
        if row["reason"]:
            self.drop(row, size)
            return
        for kind in PERSONAL:
            self.personal[kind] += row[f"personal_{kind}"]
        (self.held_out if held_out else self.kept).update(size)
        if row["clean"] and not held_out:
            self.clean.update(size)

    def drop(self, row: dict[str, Any], size: dict[str, int]) -> None:
        empty: dict[str, Any] = {"documents": 0, "text_bytes": 0, "words": 0, "measures": {}, "samples": []}
        entry = self.dropped.setdefault(row["reason"], empty)
        for name, value in size.items():
            entry[name] += value
        entry["measures"][row["measure"]] = entry["measures"].get(row["measure"], 0) + 1
        if len(entry["samples"]) < self.samples:
            text = " ".join(row["text"].split())[:SAMPLE_CHARACTERS]
            sample = {"url": row["url"], "measure": row["measure"], "value": row["value"], "threshold": row["threshold"], "text": text}
            entry["samples"].append(sample)

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


def step_of(reason: str) -> str:
    return next((step for step, reasons in STEPS.items() if reason in reasons), RULES)
