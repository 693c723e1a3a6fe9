"""The files of a crawl as tasks: measured side by side by local processes, on a Ray cluster, or by workers that come and go."""

import multiprocessing
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from data_pipeline import storage
from data_pipeline.engine import Engine, Limits
from data_pipeline.errors import InputError
from data_pipeline.web.measure_crawl import CrawlFile, CrawlMeasurer
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.segments import begun

# A file of Common Crawl takes an hour on one core at most; what it has stored is kept when a try ends.
LIMITS = Limits(seconds=6 * 3600.0, memory_bytes=6 * 2**30, retries=3)


def measure_file(task: dict[str, Any], shared: Any) -> dict[str, int]:
    """One file to its segments; what an earlier try has stored is kept. Returns how many pages were measured and their bytes."""
    settings = shared.get()
    # Pages are measured in a process of their own, which may die over one; workers' processes are not allowed any unless told so.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    measurer = CrawlMeasurer(WebRecipe.model_validate(settings["recipe"]), settings["folder"], workers=1)
    measurer.measure([CrawlFile(task["path"], task["name"], task["fingerprint"])])
    return {"pages": measurer.pages, "html_bytes": measurer.html_bytes}


def measure_files(
    recipe: WebRecipe,
    files: list[CrawlFile],
    folder: str,
    journal: str,
    workers: int | Literal["ray"],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Every file that is not measured yet, a task of the journal each; returns pages, bytes, and what the engine says this call cost.

    What the journal calls done is believed only where the segments are there: measuring with another recipe in between removes them. Such
    files are asked for once more, as a task that the journal does not know. Raises InputError where files could not be measured; the others
    are kept, and the same call goes on.
    """
    left = [file for file in files if not begun(folder, file.name, file.fingerprint).ends]
    pages = html_bytes = again = 0
    failed: list[str] = []
    with Engine(journal, workers=workers) as engine:
        shared = engine.bcast({"recipe": recipe.model_dump(mode="json"), "folder": folder})
        mark, spent = mark_of(folder), asdict(engine.costs())
        while left:
            tasks = [asdict(file) | {"folder": mark, "again": again} for file in left]
            known, gone = engine.book.view().done, []
            for future in engine.map(measure_file, tasks, shared=shared, limits=LIMITS):
                try:
                    found = future.result()
                except Exception as error:  # whatever the task ended with, after all its tries
                    failed.append(f"{future.parameters['path']}: {type(error).__name__}: {error}".splitlines()[0])
                    continue
                file = left[future.index]
                if future.task_id in known and not begun(folder, file.name, file.fingerprint).ends:
                    gone.append(future.index)
                    continue
                pages += found["pages"]
                html_bytes += found["html_bytes"]
                if progress is not None:
                    progress(pages)
            left, again = [left[index] for index in sorted(gone)], again + 1
        costs = {name: value - spent[name] for name, value in asdict(engine.costs()).items()}
    if failed:
        more = f" (and {len(failed) - 1} more files)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}; the other files are measured and kept, and the same command goes on")
    return {"pages": pages, "html_bytes": html_bytes, "costs": costs}


def mark_of(folder: str) -> str:
    """Names this folder of segments: in a new one every file is measured again, whatever the journal says was done once."""
    path = f"{folder}/folder.json"
    store, inside = storage.filesystem(path)
    if not store.exists(inside):
        storage.write_json(path, {"mark": uuid.uuid4().hex})
    return str(storage.read_json(path)["mark"])
