"""The files of a crawl as tasks: measured side by side by local processes, on a Ray cluster, or by workers that come and go."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from data_pipeline.engine import Engine, Limits
from data_pipeline.errors import InputError
from data_pipeline.web.measure_crawl import CrawlFile, CrawlMeasurer
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.segments import begun

# A file of Common Crawl takes minutes; whatever hangs in one is a fault, and the task is given to another worker.
LIMITS = Limits(seconds=6 * 3600.0, memory_bytes=4 * 2**30)


def measure_file(task: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """One file to its segments; what an earlier try has stored is kept. Returns how many pages were measured and their bytes."""
    measurer = CrawlMeasurer(WebRecipe.model_validate(shared["recipe"]), shared["folder"], workers=1)
    measurer.measure([CrawlFile(**task)])
    return {"pages": measurer.pages, "html_bytes": measurer.html_bytes}


def measure_files(
    recipe: WebRecipe, files: list[CrawlFile], folder: str, journal: str, workers: int | str, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Every file that is not measured yet, a task of the journal each; returns pages, bytes, and what the engine says it cost."""
    left = [file for file in files if not begun(folder, file.name, file.fingerprint).ends]
    pages = html_bytes = 0
    failed: list[str] = []
    with Engine(journal, workers=workers) as engine:
        shared = engine.bcast({"recipe": recipe.model_dump(mode="json"), "folder": folder})
        for future in engine.map(measure_file, [asdict(file) for file in left], ref=shared, limits=LIMITS):
            if future.error is not None:
                failed.append(f"{future.parameters['path']}: {future.error}")
                continue
            found = future.result()
            pages += found["pages"]
            html_bytes += found["html_bytes"]
            if progress is not None:
                progress(pages)
        costs = engine.costs()
    if failed:
        more = f" (and {len(failed) - 1} more files)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}; the other files are measured and kept, and the same command goes on")
    return {"pages": pages, "html_bytes": html_bytes, "costs": costs}
