"""Preference pairs: how often the chosen answer is more probable than the rejected one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.benchmarks import PreferenceItem
from data_pipeline.errors import InputError
from eval.choices import accuracy
from eval.intervals import mean
from eval.models import Model
from eval.prompts import protocol_hash, split_joined

if TYPE_CHECKING:
    from eval.benchmarks import Settings

SCORINGS = {
    "sum": "summed log-probability of the answer, as DPO compares it (not normalised by length)",
    "per_token": "the sum divided by the answer's tokens (normalised by length)",
}


@dataclass(frozen=True)
class Work:
    """An item with the ids of its prompt and of both answers."""

    item: PreferenceItem
    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]  # chosen, rejected
    tokens_cut: int


def protocol(settings: "Settings", model: Model) -> dict[str, Any]:
    fields = {
        "chat": settings.chat,
        "prompt": "chat turns; the answer with its end mark" if settings.chat else "contents joined by blank lines; one space; the answer",
        "chat_template": model.text.template_hash if settings.chat else None,
        "scoring": "sum",
        "scorings": SCORINGS,
        "reference": "none: the model's own log-probabilities",
        "bos": "none",
    }
    return {**fields, "hash": protocol_hash(fields)}


def prepare(model: Model, settings: "Settings", items: Sequence[PreferenceItem], data: Path) -> list[Work]:
    """Prompts and answers of all items; a prompt that is too long is cut on the left."""
    works = []
    for item in items:
        prompt, answers = pair_texts(model, settings.chat, item)
        context, continuations = split_joined(model.text, prompt, answers)
        room = model.context - max(len(one) for one in continuations) + 1
        if room < 1:
            raise InputError(f"{item.id}: an answer of {max(map(len, continuations))} tokens does not fit the context of {model.context}")
        works.append(Work(item, context[-room:], continuations, max(0, len(context) - room)))
    return works


def pair_texts(model: Model, chat: bool, item: PreferenceItem) -> tuple[str, list[str]]:
    """The prompt's text, and what the chosen and the rejected answer add to it."""
    if not chat:
        prompt = "\n\n".join(turn["content"] for turn in item.prompt)
        return prompt, [" " + "\n\n".join(turn["content"] for turn in turns) for turns in (item.chosen, item.rejected)]
    prompt = model.text.chat(item.prompt, answer_next=True)
    wholes = [model.text.chat([*item.prompt, *turns], answer_next=False).rstrip("\n") for turns in (item.chosen, item.rejected)]
    for whole in wholes:
        if not whole.startswith(prompt):
            raise InputError(f"{item.id}: in this chat template an answered conversation does not begin with its prompt; use --no-chat")
    return prompt, [whole[len(prompt) :] for whole in wholes]


def run(model: Model, settings: "Settings", work: Sequence[Work]) -> list[dict[str, Any]]:
    """One row per pair with both log-probabilities."""
    scores = iter(model.score([(one.context, answer) for one in work for answer in one.answers]))
    rows = []
    for one in work:
        chosen, rejected = next(scores), next(scores)
        values = {
            "sum": (chosen.log_probability, rejected.log_probability),
            "per_token": (chosen.log_probability / chosen.num_tokens, rejected.log_probability / rejected.num_tokens),
        }
        rows.append(
            {
                "id": one.item.id,
                "family": one.item.family,
                "kind": one.item.kind,
                "log_probabilities": {"chosen": chosen.log_probability, "rejected": rejected.log_probability},
                "tokens": {"chosen": chosen.num_tokens, "rejected": rejected.num_tokens},
                "right": {name: first > second for name, (first, second) in values.items()},
                "tokens_cut": one.tokens_cut,
            }
        )
    return rows


def summarise(rows: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    """Share of pairs in the right order under both scorings, over all items, per family and per kind of preference."""
    scores = {name: accuracy(rows, name) for name in SCORINGS}
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {"family": {}, "kind": {}}
    for row in rows:
        for field, found in groups.items():
            found.setdefault(row[field], []).append(row)
    tables = {
        field: {name: {scoring: accuracy(some, scoring) for scoring in SCORINGS} for name, some in sorted(found.items())}
        for field, found in groups.items()
    }
    for name, score in scores.items():
        score["macro"] = mean([entry[name]["score"] for entry in tables["family"].values()])
    return {
        "score": scores["sum"]["score"],
        "standard_error": scores["sum"]["standard_error"],
        "items": len(rows),
        "chance": 0.5,
        "scoring": "sum",
        "scores": scores,
        "families": tables["family"],
        "kinds": tables["kind"],
        "truncations": {"items_cut_on_the_left": sum(row["tokens_cut"] > 0 for row in rows)},
    }
