"""Every item of a folder of benchmark files, whatever their form: what decontamination searches the crawl for.

The forms that `phial eval` reads keep its task names and item ids, so that a list of dirty items fits its results. Of any other JSON, JSON
lines, CSV or text file a row's question and answer are taken by the names of its fields. Answers that are a letter, a number or a key
become the text of the option they name.
"""

import ast
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.benchmarks import read_mmlu_file
from data_pipeline.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".tsv", ".txt")
SPLIT = re.compile(r"(train|tests?|valid|validation|dev|val)([_-].*)?", re.IGNORECASE)
MMLU = re.compile(r"(.+)_(dev|test|val)\.csv")
EVAL_TASKS = {"documents.jsonl": "bits_per_byte"}  # where phial eval's name of a file's task is not the file's own
ID_FIELDS = ("id", "task_id", "question_id")
PASSAGE_FIELDS = ("passage", "context")
QUESTION_FIELDS = ("question", "Question", "query", "goal", "input", "instruction", "prompt_template", "text", "prompt", "stem", "problem")
ANSWER_FIELDS = (
    "answer_text",
    "canonical_solution",
    "code",
    "completion",
    "ground_truth",
    "target",
    "Best Answer",
    "continuation",
    "output",
    "solution",
    "reference",
)
LETTERS = "ABCDEFGHIJ"
LETTER_MARK = re.compile(r"^\s*\(?[A-J][).]\s*")  # of an option that carries its own letter


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a benchmark. `answer` is empty where the file has none."""

    task: str
    split: str
    id: str  # differs from the others of its task and split
    question: str
    answer: str


def benchmark_files(folder: str | Path) -> list[Path]:
    """The files of a folder (or the one file) in a form that items are read from, by name; others are labels, licences, notes."""
    root = Path(folder)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; a folder of benchmark files ({', '.join(SUFFIXES)}) is needed")
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.name.lower().endswith(SUFFIXES))
    if not found:
        raise InputError(f"{folder}: no benchmark files; {', '.join(SUFFIXES)} are read")
    return found


def benchmark_items(folder: str | Path, on_file: Callable[[Path, int], None] | None = None) -> Iterator[Item]:
    """The items of every file below the folder, in the order of the files' names; `on_file` hears how many each one had, 0 included."""
    root = Path(folder)
    for path in benchmark_files(root):
        task, split = task_of(path, root)
        count = 0
        seen: set[str] = set()
        for item in file_items(path, task, split):
            if item.id in seen:
                raise InputError(f"{path}: the id {item.id!r} came before; ids must differ within a file")
            seen.add(item.id)
            count += 1
            yield item
        if on_file is not None:
            on_file(path, count)


def task_of(path: Path, root: Path) -> tuple[str, str]:
    """Task and split by where the file lies: `gsm8k/test.jsonl` is gsm8k's split test, `gauntlet/copa.jsonl` the task gauntlet/copa."""
    top = root if root.is_dir() else root.parent
    parts = list(path.relative_to(top).parts)
    name = re.sub(r"\.(jsonl|json|csv|tsv|txt)(\.gz)?$", "", parts.pop(), flags=re.IGNORECASE)
    if path.name in EVAL_TASKS:
        name = EVAL_TASKS[path.name]
    mmlu = MMLU.fullmatch(path.name)
    if mmlu and path.parent.name == mmlu[2]:
        return "/".join(parts[:-1]) or top.name, mmlu[2]
    if SPLIT.fullmatch(name):
        return "/".join(parts) or top.resolve().name, name
    return "/".join([*parts, name]), ""


def file_items(path: Path, task: str, split: str) -> Iterator[Item]:
    """The items of one file."""
    mmlu = MMLU.fullmatch(path.name)
    if mmlu and path.parent.name == mmlu[2]:
        for choice in read_mmlu_file(path, mmlu[1]):
            yield Item(task=task, split=split, id=choice.id, question=choice.question, answer=choice.options[choice.answer])
        return
    labels = labels_beside(path)
    taken: set[str] = set()
    for number, row in enumerate(file_rows(path)):
        question, answer = question_and_answer(row, labels[number] if number < len(labels) else None)
        if question.strip() or answer.strip():
            given = next((str(row[name]) for name in ID_FIELDS if isinstance(row.get(name), str | int)), "")
            name = given if given and given not in taken else f"{number:05d}"
            taken.add(name)
            yield Item(task=task, split=split, id=name, question=question, answer=answer)


def labels_beside(path: Path) -> list[str]:
    """PIQA's form: right answers in a file of their own, one a line."""
    labels = path.with_name(f"{path.name.split('.')[0]}-labels.lst")
    return labels.read_text(encoding="utf-8").split() if labels.is_file() else []


def file_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as objects."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".txt"):
        yield from ({"text": block} for block in re.split(r"\n\s*\n|\n-----\n", text))
    elif name.endswith((".csv", ".tsv")):
        yield from table_rows(text, "\t" if name.endswith(".tsv") else ",", path)
    else:
        yield from json_rows(text, path, lines=name.endswith(".jsonl"))


def json_rows(text: str, path: Path, lines: bool) -> Iterator[dict[str, Any]]:
    """Objects of JSON lines, of a list, or of the list `examples` or `data` of one object."""
    try:
        values = [json.loads(line) for line in text.split("\n") if line.strip()] if lines else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if isinstance(values, dict):
        values = next((values[name] for name in ("examples", "data", "items") if isinstance(values.get(name), list)), [])
    yield from (row for row in values if isinstance(row, dict))


def table_rows(text: str, mark: str, path: Path) -> Iterator[dict[str, Any]]:
    """Rows by their header; a table without a question column has an item in every cell (one that spells a Python object is read as it)."""
    csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error})") from error
    for row in rows:
        if any(name in row for name in QUESTION_FIELDS):
            yield row
            continue
        for cell in row.values():
            if isinstance(cell, str) and cell.strip():
                yield spelled(cell)


def spelled(cell: str) -> dict[str, Any]:
    """The object that a cell spells, else its text."""
    if cell.lstrip().startswith("{"):
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, dict):
            return value
    return {"text": cell}


def question_and_answer(row: dict[str, Any], label: str | None = None) -> tuple[str, str]:
    """What a row asks, its passage first, and the text of its right answer."""
    if isinstance(row.get("instances"), list):  # an instruction with worked instances
        inner = [one for one in row["instances"] if isinstance(one, dict)]
        asked = [written(row.get("instruction")), *(written(one.get("input")) for one in inner)]
        return joined(asked), joined([written(one.get("output")) for one in inner])
    question = row.get("question")
    if isinstance(question, dict):  # the stem and the options inside
        row = {**row, "question": question.get("stem", ""), "options": question.get("choices", [])}
    options = options_of(row)
    passages = [written(row.get(name)) for name in PASSAGE_FIELDS]
    if isinstance(row.get("context_options"), list):
        passages = [written(chosen(row["context_options"], row.get("gold")))]
    asked = next((written(row[name]) for name in QUESTION_FIELDS if row.get(name)), "") or written(row.get("turns"))
    return joined([*passages, asked]), answer_of(row, options, label)


def options_of(row: dict[str, Any]) -> dict[str, str]:
    """The options by letter, or by their own keys."""
    options = row.get("options", row.get("choices"))
    if isinstance(options, dict):
        return {str(name): written(text) for name, text in options.items()}
    if not isinstance(options, list):
        solutions = [written(row[name]) for name in ("sol1", "sol2") if name in row]
        return dict(zip(LETTERS, solutions, strict=False))
    if all(isinstance(one, dict) and "label" in one for one in options):
        return {str(one["label"]): written(one.get("text")) for one in options}
    return {letter: LETTER_MARK.sub("", written(one)) for letter, one in zip(LETTERS, options, strict=False)}


def answer_of(row: dict[str, Any], options: dict[str, str], label: str | None) -> str:
    """The right answer's text."""
    if isinstance(row.get("chosen"), list):
        return written(row["chosen"])
    for name in ("mc1_targets", "mc0_targets"):
        if isinstance(row.get(name), dict):
            return joined([text for text, right in row[name].items() if right])
    named = next((row[name] for name in ("label", "answerKey", "answer_idx", "gold", "answer") if row.get(name) not in (None, "")), label)
    if options and named is not None and "context_options" not in row:
        names = list(options)
        wanted = named if isinstance(named, list) else [named]
        found = [options.get(str(one)) or (options[names[int(one)]] if is_place(one, names) else "") for one in wanted]
        if any(found):
            return joined(found)
    given = row.get("answer")
    reasons = [written(row.get("chain_of_thought")), written(given)]
    return next((written(row[name]) for name in ANSWER_FIELDS if row.get(name)), "") or joined(reasons) or written_choices(row)


def is_place(value: Any, names: list[str]) -> bool:
    return str(value).isdecimal() and int(value) < len(names)


def chosen(options: list[Any], place: Any) -> Any:
    return options[place] if isinstance(place, int) and 0 <= place < len(options) else options[0] if options else ""


def written_choices(row: dict[str, Any]) -> str:
    """Reference answers kept as choices with turns."""
    choices = row.get("choices")
    return joined([written(one.get("turns")) for one in choices if isinstance(one, dict)]) if isinstance(choices, list) else ""


def written(value: Any) -> str:
    """A value as text: turns and lists one below the other, numbers as they are written."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return joined([written(one) for one in value])
    if isinstance(value, dict):
        return written(value.get("content", value.get("text", "")))
    return "" if value is None or isinstance(value, bool) else str(value)


def joined(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
