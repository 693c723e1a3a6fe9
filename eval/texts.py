"""Bits per byte of documents: how many bits the model needs for a byte of unseen text, whatever its vocabulary. Lower is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.benchmarks import TextItem
from eval.intervals import ratio_standard_error
from eval.models import Model
from eval.prompts import protocol_hash
from eval.scoring import Request

if TYPE_CHECKING:
    from eval.benchmarks import Settings


@dataclass(frozen=True)
class Work:
    """A document as windows of (what comes before, what is measured)."""

    item: TextItem
    windows: tuple[Request, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(window[1]) for window in self.windows)


def protocol(settings: "Settings", model: Model) -> dict[str, Any]:
    fields = {
        "start": "<|endoftext|> before each document",
        "windows": f"of {model.context} tokens, disjoint, each begun by the last token of the one before it",
        "unit": "bits per UTF-8 byte, summed over documents before dividing",
        "bos": "none",
    }
    return {**fields, "hash": protocol_hash(fields)}


def prepare(model: Model, settings: "Settings", items: Sequence[TextItem], data: Path) -> list[Work]:
    """Windows of all documents."""
    return [
        Work(item, windows(ids, model.text.start_id, model.context))
        for item, ids in zip(items, model.text.encode([item.text for item in items]), strict=True)
    ]


def windows(ids: Sequence[int], start_id: int, context: int) -> tuple[Request, ...]:
    """Every token measured once: the first window begins after `start_id`, later ones after the last token of the one before."""
    whole = [start_id, *ids]
    return tuple(((whole[at],), tuple(whole[at + 1 : at + 1 + context])) for at in range(0, len(ids), context))


def run(model: Model, settings: "Settings", work: Sequence[Work]) -> list[dict[str, Any]]:
    """One row per document with its log-probability, tokens and bytes."""
    scores = iter(model.score([window for one in work for window in one.windows]))
    rows = []
    for one in work:
        log_probability = math.fsum(next(scores).log_probability for _ in one.windows)
        size = len(one.item.text.encode())
        rows.append(
            {
                "id": one.item.id,
                "family": "",
                "log_probability": log_probability,
                "tokens": one.num_tokens,
                "bytes": size,
                "bits_per_byte": -log_probability / math.log(2) / size,
            }
        )
    return rows


def summarise(rows: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    """Bits over bytes of all documents together; the standard error takes documents as independent."""
    bits = [-row["log_probability"] / math.log(2) for row in rows]
    sizes = [float(row["bytes"]) for row in rows]
    return {
        "score": math.fsum(bits) / math.fsum(sizes),
        "standard_error": ratio_standard_error(bits, sizes),
        "items": len(rows),
        "chance": 8.0,
        "scoring": "bits_per_byte",
        "bytes": int(math.fsum(sizes)),
        "tokens": sum(row["tokens"] for row in rows),
        "families": {},
    }
