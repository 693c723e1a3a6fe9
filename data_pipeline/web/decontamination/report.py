"""What a search for benchmark items leaves behind: contamination.json, hits.jsonl, and each task's items as clean, dirty and unchecked."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.storage import write_json, write_json_lines
from data_pipeline.web.decontamination.decide import Found, Verdicts
from data_pipeline.web.decontamination.index import BenchmarkIndex
from data_pipeline.web.decontamination.recipe import Decontamination

LISTED = 1000  # documents that contamination.json names per task; hits.jsonl has all


def write_contamination(
    folder: Path,
    index: BenchmarkIndex,
    verdicts: Verdicts,
    document_id: Callable[[int], str],
    documents: int,
    settings: Decontamination | None = None,
) -> dict[str, Any]:
    """Writes contamination.json, hits.jsonl and split/<task>.json into `folder`; returns what contamination.json holds.

    `document_id` names a page by its number; it is asked for pages with hits only. `documents` is how many were searched.
    """
    settings = settings or index.settings
    write_json_lines(folder / "hits.jsonl", hit_rows(index, verdicts, document_id))
    record = {
        "format": 1,
        "settings": settings.model_dump(mode="json"),
        "documents": documents,
        "contaminated_documents": len(verdicts.pages),
        "near_documents": len(verdicts.near),
        "common_ngrams": verdicts.common_grams,
        "files_without_items": [name for name, count in index.files if not count],
        "benchmarks": {},
    }
    splits = task_splits(index, verdicts)
    listed = documents_of_tasks(index, verdicts, document_id)
    for task, parts in splits.items():
        counts = {name: sum(len(part[name]) for part in parts.values()) for name in ("clean", "dirty", "unchecked")}
        items = sum(counts.values())
        ids = listed.get(task, [])
        found = {"items": items, **counts, "share": round(counts["dirty"] / items, 6), "documents": len(ids), "document_ids": ids[:LISTED]}
        record["benchmarks"][task] = found
        write_json(folder / "split" / f"{task}.json", {"format": 1, "task": task, "splits": parts})
    write_json(folder / "contamination.json", record)
    return record


def task_splits(index: BenchmarkIndex, verdicts: Verdicts) -> dict[str, dict[str, dict[str, list[str]]]]:
    """task -> split -> clean, dirty, unchecked -> item ids. Unchecked: too short, or nothing but the benchmark's wording, to be found."""
    searchable = index.searchable()
    tasks: dict[str, dict[str, dict[str, list[str]]]] = {}
    for number, name in enumerate(index.names):
        part = tasks.setdefault(name.task, {}).setdefault(name.split, {"clean": [], "dirty": [], "unchecked": []})
        part["dirty" if verdicts.dirty[number] else "clean" if searchable[number] else "unchecked"].append(name.id)
    return tasks


def documents_of_tasks(index: BenchmarkIndex, verdicts: Verdicts, document_id: Callable[[int], str]) -> dict[str, list[str]]:
    """task -> ids of the pages that hold one of its items, in page order."""
    tasks: dict[str, list[str]] = {}
    for page, found in sorted(verdicts.pages.items()):
        for task in dict.fromkeys(index.names[one.item].task for one in found):
            tasks.setdefault(task, []).append(document_id(page))
    return tasks


def hit_rows(index: BenchmarkIndex, verdicts: Verdicts, document_id: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    """One row per page and item, near hits too, in page order."""
    for page in sorted({*verdicts.pages, *verdicts.near}):
        for one in verdicts.pages.get(page) or verdicts.near[page]:
            yield {"document": document_id(page), **hit_row(index, one)}


def hit_row(index: BenchmarkIndex, found: Found) -> dict[str, Any]:
    """What is told of one item on one page."""
    numbers = dataclasses.asdict(found)
    del numbers["item"]
    return {**dataclasses.asdict(index.names[found.item]), **numbers}
