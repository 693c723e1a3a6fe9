"""Scores on the items that the crawl held and on those it did not, from the lists that decontamination writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json

PARTS = ("clean", "dirty", "unchecked")
SPLITS = {"mmlu": "test"}  # which split of a task is scored; the others have one, without a name


def read_split(folder: str | Path, task: str) -> dict[str, str] | None:
    """Item id -> clean, dirty or unchecked, from `FOLDER/<task>.json` or `FOLDER/split/<task>.json`; None where the task has no list."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; --split takes one that `phial data build` or `phial data decontaminate` wrote")
    path = next((path for path in (root / f"{task}.json", root / "split" / f"{task}.json") if path.is_file()), None)
    if path is None:
        return None
    record = read_json(path)
    parts = record.get("splits", {}).get(SPLITS.get(task, "")) if isinstance(record, dict) and record.get("format") == 1 else None
    if not isinstance(parts, dict) or not all(isinstance(parts.get(name), list) for name in PARTS):
        raise InputError(f"{path}: no lists {', '.join(PARTS)} of the split {SPLITS.get(task, '')!r}; write it again with decontamination")
    return {item: name for name in PARTS for item in parts[name]}


def by_contamination(
    task: str, rows: list[dict[str, Any]], split: dict[str, str] | None, summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> dict[str, Any]:
    """What a task's entry in results.json gains: `clean`, `dirty` and `unchecked` with items, score and standard_error (items alone where
    there are none), or a line that says that the task has no list."""
    if split is None:
        return {"split": "no list of clean and dirty items for this task"}
    for row in rows:
        if row["id"] not in split:
            raise InputError(f"{task}: the split has no item {row['id']!r}; it was made from other benchmark files")
    found: dict[str, Any] = {}
    for name in PARTS:
        some = [row for row in rows if split[row["id"]] == name]
        whole = summarise(some) if some else {}
        found[name] = {"items": len(some), **{key: whole[key] for key in ("score", "standard_error") if key in whole}}
    return found
