"""The synthesize stage: training text, chat rows, preference pairs, and held-out items of the same skills."""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.records import Document, read_documents, write_documents
from data_pipeline.storage import atomic_folder, atomic_write, write_json_lines
from data_pipeline.synthetic.numbers import ADDITION, COMPARISON, DIVISIBILITY, PLACE_VALUE, UNITS
from data_pipeline.synthetic.problem import Family, Problem, draw_problem
from data_pipeline.synthetic.programs import PROGRAMS, run_programs
from data_pipeline.synthetic.recipe import SyntheticRecipe
from data_pipeline.synthetic.texts import PAIRS, answer_sheet, exercise_sheet, lesson, preference, sft_row, worked_example
from data_pipeline.synthetic.words import ALPHABET, DATES, RECALL, SEQUENCES

FAMILIES = {
    family.name: family for family in (COMPARISON, DIVISIBILITY, ADDITION, PLACE_VALUE, SEQUENCES, UNITS, RECALL, ALPHABET, DATES, PROGRAMS)
}


def chosen_families(recipe: SyntheticRecipe) -> list[Family]:
    """The recipe's families, all where it names none."""
    for name in recipe.families:
        if name not in FAMILIES:
            raise InputError(f"[synthetic] families: no family called {name!r}; there is {', '.join(FAMILIES)}")
    return [FAMILIES[name] for name in recipe.families or FAMILIES]


class Source:
    """Problems of one family and split, all different where asked, each one checked.

    The random stream of every purpose is its own, so that a changed count leaves the rest as it was.
    """

    def __init__(self, recipe: SyntheticRecipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.drawn: list[Problem] = []

    def rng(self, *purpose: object) -> Random:
        return Random(repr((self.seed, *purpose)))

    def training(self, family: Family, rng: Random) -> Problem:
        problem = draw_problem(family, rng, "train", self.recipe.held_out_share)
        self.drawn.append(problem)
        return problem

    def held_out(self, family: Family, rng: Random, seen: set[str]) -> Problem:
        """A held-out problem whose operands and wording together were not drawn before."""
        for _ in range(10_000):
            problem = draw_problem(family, rng, "held_out", self.recipe.held_out_share)
            if problem.question not in seen:
                seen.add(problem.question)
                self.drawn.append(problem)
                return problem
        raise InputError(
            f"[synthetic] {family.name} has only {len(seen)} different held-out questions; "
            "ask for fewer held_out_* items or raise held_out_share"
        )


def training_documents(families: list[Family], source: Source) -> Iterator[Document]:
    """Lessons, worked examples and sheets, the kinds in turn."""
    recipe = source.recipe
    counts = {
        "lesson": recipe.lessons,
        "worked_example": recipe.worked_examples,
        "exercise_sheet": recipe.exercise_sheets,
        "answer_sheet": recipe.short_answers,
    }
    for family in families:
        for kind, count in counts.items():
            rng = source.rng("documents", family.name, kind)
            for number in range(count):
                sheet = [source.training(family, rng) for _ in range(rng.randint(1, 4) if kind.endswith("sheet") else 1)]
                text = {
                    "lesson": lambda: lesson(family, sheet[0], rng),  # noqa: B023 (called in this turn of the loop)
                    "worked_example": lambda: worked_example(sheet[0], rng),  # noqa: B023
                    "exercise_sheet": lambda: exercise_sheet(family, sheet, rng),  # noqa: B023
                    "answer_sheet": lambda: answer_sheet(sheet),  # noqa: B023
                }[kind]()
                yield Document(
                    id=f"synthetic/{family.name}/{kind}/{number:06d}",
                    text=text,
                    source="synthetic",
                    language="en",
                    kind=kind,
                    family=family.name,
                )


def interleaved(families: list[Family], count: int, make: Callable[[Family, int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`count` rows of every family, the families in turn."""
    for number in range(count):
        for family in families:
            yield make(family, number)


def synthesize(
    recipe: SyntheticRecipe, out: Path, seed: int, held_out_documents: Path | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Writes the folder `synthetic/` of a run, whole or not at all; returns its counts.

    `held_out_documents`: a Parquet file whose texts go into the held-out folder, for bits per byte.
    Raises InputError for an unknown family or more held-out items than a family has.
    """
    families = chosen_families(recipe)
    source = Source(recipe, seed)
    say = progress or (lambda line: None)
    with atomic_folder(out) as folder:
        say("lessons, worked examples and sheets")
        # In an order that mixes the families, so that any prefix of the file is a fair sample.
        documents = list(training_documents(families, source))
        source.rng("order").shuffle(documents)
        write_documents(folder / "documents.parquet", documents)
        say("chat rows and preference pairs")
        rng = source.rng("sft")
        sft = write_json_lines(
            folder / "sft.jsonl", interleaved(families, recipe.sft_rows, lambda family, _: sft_row(source.training(family, rng), rng))
        )
        rng_pairs, kinds = source.rng("dpo"), list(islice(cycle(PAIRS), recipe.dpo_rows))
        dpo = write_json_lines(
            folder / "dpo.jsonl",
            interleaved(families, recipe.dpo_rows, lambda family, n: preference(source.training(family, rng_pairs), kinds[n], rng_pairs)),
        )
        say("held-out items")
        held_out = write_held_out(families, source, folder / "held_out", held_out_documents)
        say("executing the generated programs")
        executed = check_programs(source.drawn)
    return {
        "families": [family.name for family in families],
        "documents": len(documents),
        "characters": sum(len(document.text) for document in documents),
        "sft_rows": sft,
        "dpo_rows": dpo,
        "checked_problems": len(source.drawn),
        "executed_programs": executed,
        **held_out,
    }


def write_held_out(families: list[Family], source: Source, folder: Path, documents: Path | None) -> dict[str, int]:
    """The benchmark folder: MMLU's CSV files per family, exercises, preferences, documents."""
    recipe = source.recipe
    seen: dict[str, set[str]] = {family.name: set() for family in families}
    for family in families:
        rng = source.rng("held_out", family.name)
        items = [source.held_out(family, rng, seen[family.name]) for _ in range(recipe.held_out_items)]
        shots = [source.training(family, rng) for _ in range(5)]  # dev shots are examples, drawn like training text
        write_mmlu(folder / "mmlu" / "test" / f"{family.name}_test.csv", items, rng)
        write_mmlu(folder / "mmlu" / "dev" / f"{family.name}_dev.csv", shots, rng)
    rng = source.rng("exercises")

    def exercise(family: Family, number: int) -> dict[str, Any]:
        problem = source.held_out(family, rng, seen[family.name])
        return {
            "id": f"{family.name}/{number:04d}",
            "family": family.name,
            "question": problem.question,
            "answer": problem.answer,
        }

    def pair(family: Family, number: int) -> dict[str, Any]:
        kind = list(PAIRS)[number % len(PAIRS)]
        return {
            "id": f"{family.name}/{kind}/{number:04d}",
            **preference(source.held_out(family, rng, seen[family.name]), kind, rng),
        }

    counts = {
        "held_out_items": len(families) * recipe.held_out_items,
        "held_out_exercises": write_json_lines(folder / "exercises.jsonl", interleaved(families, recipe.held_out_exercises, exercise)),
        "held_out_preferences": write_json_lines(folder / "preferences.jsonl", interleaved(families, recipe.held_out_preferences, pair)),
    }
    if documents is not None:
        rows = ({"id": document.id, "text": document.text} for document in read_documents(documents))
        counts["held_out_documents"] = write_json_lines(folder / "documents.jsonl", rows)
    return counts


def write_mmlu(path: Path, problems: list[Problem], rng: Random) -> None:
    """MMLU's original form: no header; question, four options, letter."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for problem in problems:
        options, letter = problem.options(rng)
        writer.writerow([problem.choice, *options, letter])
    with atomic_write(path, "w") as stream:
        stream.write(text.getvalue())


def check_programs(problems: list[Problem]) -> int:
    """Executes every different program and compares what it returns with the recorded answer."""
    answers = {problem.program: problem.answer for problem in problems if problem.program is not None}
    results = run_programs(list(answers))
    for (source, call), answer, result in zip(answers, answers.values(), results, strict=True):
        if str(result) != answer:
            raise AssertionError(f"{call} of {source!r} returns {result!r}, not the recorded {answer!r}")
    return len(answers)
