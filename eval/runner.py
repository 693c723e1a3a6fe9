"""Scores a model on benchmarks; a killed run goes on where it was."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import write_json, write_json_lines
from eval.benchmarks import Benchmark, Settings, find_benchmarks
from eval.contamination import by_contamination, read_split
from eval.models import Model, open_model
from eval.progress_log import ProgressLog

CHUNK = 256  # items between two entries of the progress log
Progress = Callable[[str, int, int], None]  # task, items done, items in all


def evaluate(
    model: str | Path | Model,
    tasks: Sequence[str],
    data: str | Path,
    out: str | Path | None = None,
    *,
    shots: int = 0,
    chat: str | bool = "auto",
    limit: int | None = None,
    seed: int = 0,
    protocol: str = "lm-eval",
    scoring: str = "letter",
    max_new_tokens: int = 32,
    tokenizer: str | Path | None = None,
    split: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores `model` (a folder, or an opened model) on `tasks` with the files of the folder `data`.

    `chat` "auto" uses the chat format where the model has a template. `limit` takes that many items of each task, drawn with `seed`.
    With `split`, a folder that decontamination wrote, each task also has its score on `clean`, `dirty` and `unchecked` items.
    With `out`, writes OUT/results.json and OUT/items.jsonl after each task, and goes on from OUT/progress.jsonl where a run was killed.
    Returns what results.json holds: {"format", "model", "settings", "tasks": {task: {"score", "standard_error", "items", "chance",
    "protocol", "families", ...}}}. Raises InputError for an unknown task, a missing file, or a folder that is no model.
    """
    rows = find_benchmarks([tasks] if isinstance(tasks, str) else tasks)
    if limit is not None and limit < 1:
        raise InputError(f"limit = {limit}: at least one item is needed")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens = {max_new_tokens}: an answer needs at least one token")
    if not Path(data).is_dir():
        raise InputError(f"{data}: no such folder; benchmark data is a folder with {'; '.join(row.files for row in rows.values())}")
    read = {name: sampled(row.read(Path(data)), limit, seed) for name, row in rows.items()}
    splits = {name: read_split(split, name) for name in rows} if split is not None else {}
    opened = model if isinstance(model, Model) else open_model(model, tokenizer)
    settings = Settings(shots=shots, chat=use_chat(opened, chat), protocol=protocol, scoring=scoring, max_new_tokens=max_new_tokens)
    log = ProgressLog(None if out is None else Path(out) / "progress.jsonl")
    results: dict[str, Any] = {
        "format": 1,
        "model": dataclasses.asdict(opened.identity) | {"context": opened.context},
        "settings": dataclasses.asdict(settings) | {"limit": limit, "seed": seed},
        "tasks": {},
    }
    written: list[dict[str, Any]] = []
    for name, row in rows.items():
        form = row.protocol(settings, opened)
        found = run_task(opened, name, row, settings, form, read[name], Path(data), log, progress)
        results["tasks"][name] = {**row.summarise(found, form), "protocol": form}
        if split is not None:
            parts = by_contamination(name, found, splits[name], lambda some, row=row, form=form: row.summarise(some, form))
            results["tasks"][name] |= parts
        written += [{"task": name, **one} for one in found]
        if out is not None:
            write_json_lines(Path(out) / "items.jsonl", written)
            write_json(Path(out) / "results.json", results)
    return results


def use_chat(model: Model, chat: str | bool) -> bool:
    """Whether prompts are chat turns."""
    if chat not in ("auto", True, False):
        raise InputError(f'chat = {chat!r}; "auto", True or False is allowed')
    has_template = model.text.chat_template is not None
    if chat is True and not has_template:
        raise InputError(f"{model.identity.path}: chat prompts were asked for, but the model has no chat template")
    return has_template if chat == "auto" else bool(chat)


def sampled(items: list[Any], limit: int | None, seed: int) -> list[Any]:
    """All items, or `limit` of them drawn without replacement, in file order; equal for equal seed and files."""
    if limit is None or limit >= len(items):
        return items
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), limit))]


def run_task(
    model: Model,
    name: str,
    row: Benchmark,
    settings: Settings,
    form: dict[str, Any],
    items: list[Any],
    data: Path,
    log: ProgressLog,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """One result row per item, in the order of `items`. Chunks whose rows are all in the log are not computed again.

    Chunks are a function of all items, not of those left, so an interrupted run computes the same batches as an undisturbed one.
    """
    work = row.prepare(model, settings, items, data)
    # What decides a row: the model, the protocol, the item, and the prompt that both make (shots included).
    prefix = f"{model.identity.fingerprint}:{form['hash']}:{name}"
    keys = [hashlib.sha256(f"{prefix}:{json.dumps(dataclasses.asdict(one), sort_keys=True)}".encode()).hexdigest() for one in work]
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks([row.size(one) for one in work]):
        known = [log.find(keys[index]) for index in chunk]
        if any(one is None for one in known):
            known = row.run(model, settings, [work[index] for index in chunk])
            log.add([(keys[index], one) for index, one in zip(chunk, known, strict=True)])
        found.update(zip(chunk, (one for one in known if one is not None), strict=True))
        if progress is not None:
            progress(name, len(found), len(items))
    return [found[index] for index in range(len(items))]


def chunks(sizes: list[int]) -> Iterator[list[int]]:
    """Indices in groups of `CHUNK`, alike sizes together and the longest first, so that memory peaks at once and not at the end."""
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    for start in range(0, len(order), CHUNK):
        yield order[start : start + CHUNK]
