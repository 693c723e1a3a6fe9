"""Four-way questions: letter scoring and option-text scoring in one pass over each question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.benchmarks import ChoiceItem, read_mmlu
from data_pipeline.errors import InputError
from eval.intervals import mean, standard_error, wilson
from eval.models import Model
from eval.prompts import PROTOCOLS, ChoiceProtocol, Prompt, choice_prompt, described

if TYPE_CHECKING:
    from eval.benchmarks import Settings

# scoring -> what is compared between the four options.
SCORINGS = {
    "letter": 'log-probability of the letter after "Answer:", highest wins',
    "text": "summed log-probability of the option's text and the end of the answer at the same place, highest wins",
    "text_per_byte": "the same, divided by the text's bytes",
}


@dataclass(frozen=True)
class Work:
    """An item and its prompt."""

    item: ChoiceItem
    prompt: Prompt


def protocol(settings: "Settings", model: Model) -> dict[str, Any]:
    if settings.scoring not in SCORINGS:
        raise InputError(f"no scoring called {settings.scoring!r}; there is {', '.join(SCORINGS)}")
    if settings.protocol not in PROTOCOLS:
        raise InputError(f"no protocol called {settings.protocol!r}; there is {', '.join(PROTOCOLS)}")
    return {
        **described(choice_protocol(settings, model)),
        "scoring": settings.scoring,
        "scorings": SCORINGS,
    }


def choice_protocol(settings: "Settings", model: Model) -> ChoiceProtocol:
    template = model.text.template_hash if settings.chat else None
    return replace(PROTOCOLS[settings.protocol], shots=settings.shots, chat=settings.chat, chat_template=template)


def prepare(model: Model, settings: "Settings", items: Sequence[ChoiceItem], data: Path) -> list[Work]:
    """Prompts of all items, with shots from the dev split where the protocol has some."""
    form = choice_protocol(settings, model)
    shots = read_mmlu(data / "mmlu", "dev") if form.shots else {}
    for subject in {item.subject for item in items} if form.shots else ():
        if len(shots.get(subject, ())) < form.shots:
            raise InputError(f"{data}/mmlu/dev: {form.shots} shots were asked for, {subject} has {len(shots.get(subject, ()))}")
    return [Work(item, choice_prompt(form, model.text, item, shots.get(item.subject, ()), model.context)) for item in items]


def run(model: Model, settings: "Settings", work: Sequence[Work]) -> list[dict[str, Any]]:
    """One row per item: log-probabilities of letters and texts, and whether each scoring is right."""
    requests = [(one.prompt.context, answer) for one in work for answer in (*one.prompt.letters, *one.prompt.texts)]
    scores = iter(model.score(requests))
    return [result(one, [next(scores).log_probability for _ in range(8)]) for one in work]


def result(work: Work, log_probabilities: list[float]) -> dict[str, Any]:
    letters, texts = log_probabilities[:4], log_probabilities[4:]
    sizes = [len(option.strip().encode()) for option in work.item.options]
    per_byte = [value / size for value, size in zip(texts, sizes, strict=True)]
    compared = {"letter": letters, "text": texts, "text_per_byte": per_byte}
    return {
        "id": work.item.id,
        "family": work.item.subject,
        "answer": work.item.answer,
        "log_probabilities": {"letter": letters, "text": texts},
        "chosen": {name: best(values) for name, values in compared.items()},
        "right": {name: best(values) == work.item.answer for name, values in compared.items()},
        "shots_dropped": work.prompt.shots_dropped,
        "tokens_cut": work.prompt.tokens_cut,
    }


def best(values: Sequence[float]) -> int:
    """The index of the highest value, the first of equal ones."""
    return max(range(len(values)), key=lambda index: (values[index], -index))


def summarise(rows: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    """Scores over all items (micro), over families (macro) and per family, for every scoring."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    scores = {name: accuracy(rows, name) for name in SCORINGS}
    per_family = {family: {name: accuracy(some, name) for name in SCORINGS} for family, some in sorted(families.items())}
    for name, score in scores.items():
        score["macro"] = mean([per_family[family][name]["score"] for family in per_family])
    chosen = form["scoring"]
    return {
        "score": scores[chosen]["score"],
        "standard_error": scores[chosen]["standard_error"],
        "items": len(rows),
        "chance": 0.25,
        "scoring": chosen,
        "scores": scores,
        "families": per_family,
        "truncations": {
            "items_with_dropped_shots": sum(row["shots_dropped"] > 0 for row in rows),
            "shots_dropped": sum(row["shots_dropped"] for row in rows),
            "items_cut_on_the_left": sum(row["tokens_cut"] > 0 for row in rows),
        },
    }


def accuracy(rows: Sequence[dict[str, Any]], scoring: str) -> dict[str, Any]:
    """Share right with its standard error and Wilson interval."""
    right = [float(row["right"][scoring]) for row in rows]
    low, high = wilson(int(sum(right)), len(right))
    return {"score": mean(right), "standard_error": standard_error(right), "low": low, "high": high, "items": len(right)}
