"""Questions with a written answer: greedy decoding, exact match after a stated normalisation."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.benchmarks import ExerciseItem
from data_pipeline.errors import InputError
from eval.choices import accuracy
from eval.models import Model
from eval.prompts import protocol_hash

if TYPE_CHECKING:
    from eval.benchmarks import Settings

PLAIN = "Question: {question}\nAnswer:"
NORMALISATION = 'NFKC, lower case, runs of white space as one space, a leading "the answer is" and a final full stop taken off'
LEAD = "the answer is "


@dataclass(frozen=True)
class Work:
    """An item and the token ids of its prompt."""

    item: ExerciseItem
    prompt: tuple[int, ...]
    tokens_cut: int


def protocol(settings: "Settings", model: Model) -> dict[str, Any]:
    fields = {
        "chat": settings.chat,
        "prompt": "the question as one user turn" if settings.chat else PLAIN,
        "chat_template": model.text.template_hash if settings.chat else None,
        "stop": [] if settings.chat else ["\n"],
        "decoding": "greedy",
        "max_new_tokens": settings.max_new_tokens,
        "normalisation": NORMALISATION,
        "bos": "none",
        "shots": 0,
    }
    return {**fields, "hash": protocol_hash(fields)}


def prepare(model: Model, settings: "Settings", items: Sequence[ExerciseItem], data: Path) -> list[Work]:
    """Prompts of all items; one that leaves no room for the answer is cut on the left."""
    room = model.context - settings.max_new_tokens + 1
    if room < 1:
        raise InputError(f"max_new_tokens = {settings.max_new_tokens} does not fit the model's context of {model.context}")
    texts = [
        model.text.chat([{"role": "user", "content": item.question}], answer_next=True)
        if settings.chat
        else PLAIN.replace("{question}", item.question)
        for item in items
    ]
    return [Work(item, tuple(ids[-room:]), max(0, len(ids) - room)) for item, ids in zip(items, model.text.encode(texts), strict=True)]


def run(model: Model, settings: "Settings", work: Sequence[Work]) -> list[dict[str, Any]]:
    """One row per item with what the model wrote."""
    stop = () if settings.chat else ("\n",)
    answers = model.generate([one.prompt for one in work], settings.max_new_tokens, stop)
    return [
        {
            "id": one.item.id,
            "family": one.item.family,
            "question": one.item.question,
            "answer": one.item.answer,
            "given": answer.text,
            "ended": answer.ended,
            "right": {"exact": normalise(answer.text) == normalise(one.item.answer)},
            "tokens_cut": one.tokens_cut,
        }
        for one, answer in zip(work, answers, strict=True)
    ]


def normalise(text: str) -> str:
    """See NORMALISATION."""
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return plain.removeprefix(LEAD).removesuffix(".").strip()


def summarise(rows: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    """Share of exact answers, over all items and per family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    whole = accuracy(rows, "exact")
    return {
        **whole,
        "chance": 0.0,
        "scoring": "exact",
        "families": {family: {"exact": accuracy(some, "exact")} for family, some in sorted(families.items())},
        "truncations": {
            "items_cut_on_the_left": sum(row["tokens_cut"] > 0 for row in rows),
            "answers_cut_at_max_new_tokens": sum(not row["ended"] for row in rows),
        },
    }
