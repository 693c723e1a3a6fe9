"""Readers of benchmark files in their official forms: rows for evaluation and for decontamination.

A file of another shape is refused with one line that says what was found and what is expected.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json_lines

LETTERS = "ABCD"
MMLU_FORM = "six fields (question, four options, answer): a letter A-D without a header row, or 0-3 below the header question,...,answer"


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """A question with four options, one of them right."""

    id: str
    subject: str
    question: str
    options: tuple[str, ...]
    answer: int  # index into options


@dataclass(frozen=True, kw_only=True)
class ExerciseItem:
    """A question with a short written answer."""

    id: str
    family: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class PreferenceItem:
    """A conversation so far, and two ways to go on. Turns are {"role", "content"} objects."""

    id: str
    family: str
    kind: str
    prompt: tuple[dict[str, str], ...]
    chosen: tuple[dict[str, str], ...]
    rejected: tuple[dict[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """A document whose probability is measured."""

    id: str
    text: str


def read_mmlu(folder: str | Path, split: str) -> dict[str, list[ChoiceItem]]:
    """The items of `FOLDER/<split>/<subject>_<split>.csv` by subject, subjects in alphabetical order.

    Takes the original form (no header, letters A-D) and the exported one (header row, answers 0-3). Fields may hold newlines and quotes,
    and options such as "None" or "NA" are text.
    """
    place = Path(folder) / split
    files = sorted(place.glob(f"*_{split}.csv"))
    if not files:
        raise InputError(f"{place}: no <subject>_{split}.csv files; MMLU's layout is mmlu/{{dev,test}}/<subject>_{{dev,test}}.csv")
    subjects = {path.name.removesuffix(f"_{split}.csv"): path for path in files}
    return {subject: read_mmlu_file(path, subject) for subject, path in subjects.items()}


def read_mmlu_file(path: Path, subject: str) -> list[ChoiceItem]:
    """The items of one MMLU file."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); expected {MMLU_FORM}") from error
    numbered = bool(rows) and [field.strip().lower() for field in (rows[0][0], rows[0][-1])] == ["question", "answer"]
    if not rows[numbered:]:
        raise InputError(f"{path}: no items; expected {MMLU_FORM}")
    names = "0123" if numbered else LETTERS
    items = []
    for number, row in enumerate(rows[numbered:]):
        where = f"{path}, item {number + 1}"
        if len(row) != 6:
            raise InputError(f"{where}: found {len(row)} fields, expected {MMLU_FORM}")
        if not all(field.strip() for field in row):
            raise InputError(f"{where}: found an empty field, expected {MMLU_FORM}")
        if row[5].strip() not in tuple(names):
            raise InputError(
                f"{where}: found the answer {row[5]!r}, expected one of {', '.join(names)} ({'with' if numbered else 'no'} header row)"
            )
        items.append(
            ChoiceItem(
                id=f"{subject}/{number:05d}",
                subject=subject,
                question=row[0],
                options=tuple(row[1:5]),
                answer=names.index(row[5].strip()),
            )
        )
    return items


def read_exercises(path: str | Path) -> list[ExerciseItem]:
    """Rows `{"id", "family", "question", "answer"}`."""
    fields = ("id", "family", "question", "answer")
    return [ExerciseItem(**{name: row[name] for name in fields}) for row in checked_rows(path, fields)]


def read_preferences(path: str | Path) -> list[PreferenceItem]:
    """Rows `{"id", "prompt": turns, "chosen": turns, "rejected": turns, "family", "kind"}`; family and kind may be missing."""
    items = []
    for row in checked_rows(path, ("id",)):
        turns = {name: read_turns(row, name, f"{path}, {row['id']}") for name in ("prompt", "chosen", "rejected")}
        items.append(PreferenceItem(id=row["id"], family=str(row.get("family", "")), kind=str(row.get("kind", "")), **turns))
    return items


def read_turns(row: dict[str, Any], name: str, where: str) -> tuple[dict[str, str], ...]:
    """A non-empty list of {"role", "content"} objects."""
    turns = row.get(name)
    if not isinstance(turns, list) or not turns:
        found = "nothing" if name not in row else f"{type(turns).__name__} {turns!r}"[:60]
        raise InputError(f"{where}: {name} must be a list of turns with role and content, found {found}")
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise InputError(f"{where}: a turn of {name} needs the strings role and content, found {str(turn)[:60]}")
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)


def read_texts(path: str | Path) -> list[TextItem]:
    """Rows `{"id", "text"}`; empty texts have no bytes to measure and are refused."""
    items = [TextItem(id=row["id"], text=row["text"]) for row in checked_rows(path, ("id", "text"))]
    for item in items:
        if not item.text:
            raise InputError(f"{path}, {item.id}: the text is empty; a document needs at least one character")
    return items


def checked_rows(path: str | Path, fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """JSON lines whose `fields` are strings and whose ids differ; at least one."""
    seen: set[str] = set()
    for number, row in enumerate(read_json_lines(path), 1):
        for name in fields:
            if not isinstance(row.get(name), str):
                found = f"{type(row[name]).__name__} {row[name]!r}"[:60] if name in row else f"the fields {', '.join(row) or '(none)'}"
                raise InputError(f"{path}, row {number}: expected a string {name!r}, found {found}")
        if row["id"] in seen:
            raise InputError(f"{path}, row {number}: the id {row['id']!r} came before; ids must differ")
        seen.add(row["id"])
        yield row
    if not seen:
        raise InputError(f"{path}: no rows; expected JSON lines with {', '.join(fields)}")
