"""The benchmarks: rows in a table. A row says which files it reads, what is asked of the model per item, and how items become a score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.benchmarks import read_exercises, read_mmlu, read_preferences, read_texts
from data_pipeline.errors import InputError
from eval import choices, exercises, preferences, texts
from eval.models import Model

# A JSON object.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the caller decides for all benchmarks; each takes what concerns it into its protocol."""

    shots: int = 0
    chat: bool = False
    protocol: str = "lm-eval"
    scoring: str = "letter"  # of four-way questions: which of the scorings is the score; all are computed
    max_new_tokens: int = 32


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One row of the table.

    read(data) -> items; protocol(settings, model) -> what is printed and hashed; prepare(model, settings, items, data) -> one piece of work
    per item; run(model, settings, work) -> one result row per item; summarise(rows, protocol) -> the entry of results.json.
    """

    title: str
    files: str  # what must be in the data folder
    read: Callable[[Path], list[Any]]
    protocol: Callable[[Settings, Model], Row]
    prepare: Callable[[Model, Settings, list[Any], Path], list[Any]]
    run: Callable[[Model, Settings, Sequence[Any]], list[Row]]
    size: Callable[[Any], int]  # tokens of a piece of work, so that alike ones are batched together
    summarise: Callable[[list[Row], Row], Row]


def read_choice_items(folder: Path) -> list[Any]:
    """All test items, subjects in order."""
    return [item for items in read_mmlu(folder / "mmlu", "test").values() for item in items]


BENCHMARKS: dict[str, Benchmark] = {
    "mmlu": Benchmark(
        title="four-way questions in MMLU's form, by letter and by option text",
        files="mmlu/test/<subject>_test.csv (and mmlu/dev for shots)",
        read=read_choice_items,
        protocol=choices.protocol,
        prepare=choices.prepare,
        run=choices.run,
        size=lambda work: len(work.prompt.context),
        summarise=choices.summarise,
    ),
    "exercises": Benchmark(
        title="written answers, greedy, exact after normalisation",
        files="exercises.jsonl",
        read=lambda folder: list(read_exercises(folder / "exercises.jsonl")),
        protocol=exercises.protocol,
        prepare=exercises.prepare,
        run=exercises.run,
        size=lambda work: len(work.prompt),
        summarise=exercises.summarise,
    ),
    "bits_per_byte": Benchmark(
        title="bits per byte of documents",
        files="documents.jsonl",
        read=lambda folder: list(read_texts(folder / "documents.jsonl")),
        protocol=texts.protocol,
        prepare=texts.prepare,
        run=texts.run,
        size=lambda work: work.num_tokens,
        summarise=texts.summarise,
    ),
    "preferences": Benchmark(
        title="pairs whose chosen answer is more probable than the rejected one",
        files="preferences.jsonl",
        read=lambda folder: list(read_preferences(folder / "preferences.jsonl")),
        protocol=preferences.protocol,
        prepare=preferences.prepare,
        run=preferences.run,
        size=lambda work: len(work.context),
        summarise=preferences.summarise,
    ),
}


def find_benchmarks(names: Sequence[str]) -> dict[str, Benchmark]:
    """The rows of these names; an unknown one is refused with the list of those there are."""
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"no task called {name!r}; there is {', '.join(BENCHMARKS)}")
    if not names:
        raise InputError(f"no task given; there is {', '.join(BENCHMARKS)}")
    return {name: BENCHMARKS[name] for name in dict.fromkeys(names)}
