"""A crawl to kept, held-out and dropped pages and a ledger of every page, with a reason and a measured value for each one that was dropped.

Three steps. Pages are measured in worker processes and stored segment by segment, so that a killed build goes on where it was and a changed
threshold reads no page again. Then everything is settled that takes the whole crawl: duplicates, contamination, the held-out pages. Last,
each page goes to its file.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.build_settings import settings_to_keep
from data_pipeline.web.collect import sources
from data_pipeline.web.funnel import Funnel
from data_pipeline.web.measure_crawl import CrawlFile, CrawlMeasurer, crawl_files
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.route import route
from data_pipeline.web.segments import facts_of, finished_segments
from data_pipeline.web.settle import Crawl, settle
from data_pipeline.web.workers import usable_cores

Progress = Callable[[int], None]


@dataclass
class Clock:
    """What each step took."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=lambda: cpu_of_all())

    def lap(self, name: str) -> None:
        wall, cpu = time.perf_counter(), cpu_of_all()
        self.steps.append({"name": name, "seconds": round(wall - self.wall, 3), "cpu_seconds": round(cpu - self.cpu, 3)})
        self.wall, self.cpu = wall, cpu


def cpu_of_all() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Workers:
    """Who measures: processes of this machine that share each file's pages, or tasks of one file each."""

    tasks: int | Literal["ray"] | None = None  # None: pages side by side here; else files: local processes, "ray", 0: `phial worker`
    journal: str = ""  # where tasks and segments are kept, on any store; the run folder by default


def build(
    recipe: WebRecipe, crawl: Path, out: Path, seed: int, progress: Progress | None = None, workers: Workers | None = None
) -> dict[str, Any]:
    """Reads the crawl folder and writes kept, held_out, dropped and ledger.parquet, funnel.json and speed.json into `out`.

    Segments of measured pages are kept beside `out`, or in the journal. Returns the funnel with `speed` added. `progress(pages)` is called
    as pages are measured. The same crawl, recipe and seed give the same bytes, speed.json apart, whoever measured and however often the
    build was killed on the way.
    """
    workers = workers or Workers()
    files = crawl_files(recipe, sources(crawl))
    folder = f"{workers.journal}/measured" if workers.journal else str(out.parent / "measured")
    clock = Clock()
    if workers.tasks is None:
        measurer = CrawlMeasurer(recipe, folder, progress)
        measurer.measure(files)
        measured = {"pages": measurer.pages, "html_bytes": measurer.html_bytes, "workers": recipe.workers or usable_cores(), "by": "pages"}
    else:
        from data_pipeline.web.crawl_tasks import measure_files

        journal = workers.journal or str(out.parent / "tasks")
        measured = measure_files(recipe, files, folder, journal, workers.tasks, progress)
        measured |= {"workers": workers.tasks if isinstance(workers.tasks, int) and workers.tasks else None, "by": "files"}
    clock.lap("measure")
    return assemble(recipe, files, folder, out, seed, clock, measured)


def assemble(
    recipe: WebRecipe, files: list[CrawlFile], segments_folder: str, out: Path, seed: int, clock: Clock, measured: dict[str, Any]
) -> dict[str, Any]:
    """From measured segments to the folder `out`, which appears whole; returns the funnel with `speed` added."""
    segments = [segment for file in files for segment in finished_segments(segments_folder, file.name, file.fingerprint)]
    funnel = Funnel(recipe.samples)
    for segment in segments:
        facts = facts_of(segment)
        funnel.broken.extend(facts.broken if facts is not None else ())
    with storage.atomic_folder(out) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        crawl = Crawl(segments)
        settled = settle(recipe, crawl, scratch, seed)
        shutil.rmtree(scratch)
        if not len(settled.fate):
            damages = f"; {len(funnel.broken):,} damages, the first: {funnel.broken[0]}" if funnel.broken else ""
            raise InputError(
                f"{', '.join(file.path for file in files[:3])}: an empty crawl: no page in {'it' if len(files) == 1 else 'them'}{damages}"
            )
        clock.lap("settle")
        route(recipe, crawl, settled, folder, funnel)
        if settled.contamination is not None:
            settled.contamination.write(folder, crawl)
        clock.lap("route")
        record = funnel.record() | {"settings": settings_to_keep(recipe)}
        storage.write_json(folder / "funnel.json", record)
        speed = speed_record(clock, measured)
        storage.write_json(folder / "speed.json", speed)
    return record | {"speed": speed}


def speed_record(clock: Clock, measured: dict[str, Any]) -> dict[str, Any]:
    """speed.json: what each step took, and how fast pages were measured. Only pages that no earlier run had measured count."""
    seconds = max(clock.steps[0]["seconds"], 1e-9)
    return {
        "seconds": round(sum(step["seconds"] for step in clock.steps), 3),
        "cpu_seconds": round(sum(step["cpu_seconds"] for step in clock.steps), 3),
        "steps": clock.steps,
        "workers": measured["workers"],  # None where they come from elsewhere
        "measured_by": measured["by"],
        "pages_measured": measured["pages"],
        "pages_per_second": round(measured["pages"] / seconds, 1),
        "html_megabytes_per_second": round(measured["html_bytes"] / 1e6 / seconds, 2),
        **({"costs": measured["costs"]} if "costs" in measured else {}),
    }
