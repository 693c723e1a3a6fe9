"""WARC records to kept, dropped and held-out documents, with a reason and a measured value for each one that was dropped.

Two passes. The first reads pages in their order, judges each in a worker process and spools the outcome; only a text key and a MinHash
signature per surviving page stay in memory. The second routes the spooled rows, once duplicates and the held-out pages are known.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.collect import sources
from data_pipeline.web.duplicates import clusters, exact_originals, similarity
from data_pipeline.web.funnel import Funnel
from data_pipeline.web.judge import Judged, judge
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import Rejection
from data_pipeline.web.tables import DROPPED, KEPT, SPOOL, TableWriter, dropped_row, kept_row, read_rows, spool_row
from data_pipeline.web.warc_reader import Broken, Page, read_pages
from data_pipeline.web.workers import Killed, Pool, usable_cores

Progress = Callable[[int], None]


def build(recipe: WebRecipe, crawl: Path, out: Path, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """Reads the crawl folder and writes kept.parquet, held_out.parquet, dropped.parquet, funnel.json and speed.json into `out`.

    Returns the funnel with `speed` added. `progress(pages)` is called as pages are judged. The same crawl, recipe and seed give the same
    bytes, speed.json apart.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    files = sources(crawl)
    with storage.atomic_folder(out) as folder:
        survivors = Survivors()
        funnel = Funnel(recipe.samples)
        spool = folder / "spool.parquet"
        with TableWriter(spool, SPOOL) as writer:
            for number, judged in enumerate(judged_pages(recipe, files, funnel), 1):
                survivors.add(judged)
                writer.add(spool_row(judged))
                if progress is not None:
                    progress(number)
        if not survivors.count:
            raise InputError(f"{crawl}: an empty crawl: no response record in {', '.join(files[:3])}")
        verdicts = survivors.settle(recipe, seed)
        route(folder, spool, verdicts, survivors.held_out, funnel)
        spool.unlink()
        record = funnel.record()
        storage.write_json(folder / "funnel.json", record)
        seconds = time.perf_counter() - started
        speed = {
            "seconds": round(seconds, 3),
            "parent_cpu_seconds": round(time.process_time() - cpu_started, 3),
            "workers": recipe.workers or usable_cores(),
            "pages_per_second": round(funnel.records / seconds, 1),
            "html_megabytes_per_second": round(funnel.html_bytes / 1e6 / seconds, 2),
        }
        storage.write_json(folder / "speed.json", speed)
    return record | {"speed": speed}


def judged_pages(recipe: WebRecipe, files: list[str], funnel: Funnel) -> Iterator[Judged]:
    """Every page of the files, judged, in order; broken files are noted in the funnel, and a page that killed its worker is dropped."""

    def pages() -> Iterator[Page]:
        for file in files:
            for one in read_pages(file, recipe.max_page_bytes):
                if isinstance(one, Broken):
                    funnel.broken.append(one.line)
                else:
                    yield one

    pool = Pool(judge, recipe, recipe.workers, recipe.page_seconds)
    for result in pool.map(pages()):
        if isinstance(result, Killed):
            page: Page = result.task
            refusal = Rejection("extraction_killed", "cpu_seconds", result.seconds, result.seconds)
            yield Judged(page.id, page.url, len(page.html), rejection=refusal)
        else:
            yield result


class Survivors:
    """What is remembered of the pages that the rules kept: place in the crawl, id, text key, signature."""

    def __init__(self) -> None:
        self.count = 0
        self.places: list[int] = []
        self.ids: list[str] = []
        self.keys: list[bytes] = []
        self.signatures: list[np.ndarray] = []
        self.held_out: set[int] = set()

    def add(self, judged: Judged) -> None:
        if judged.rejection is None and judged.signature is not None:
            self.places.append(self.count)
            self.ids.append(judged.id)
            self.keys.append(judged.key)
            self.signatures.append(judged.signature)
        self.count += 1

    def settle(self, recipe: WebRecipe, seed: int) -> dict[int, tuple[Rejection, str]]:
        """The duplicates: place in the crawl -> (rejection, id of the page that is kept instead). Chooses the held-out pages too."""
        settings = recipe.duplicates
        verdicts: dict[int, tuple[Rejection, str]] = {}
        originals = exact_originals(self.keys)
        for one, original in enumerate(originals):
            if original != one:
                verdicts[self.places[one]] = (Rejection("exact_duplicate", "similarity", 1.0, 1.0), self.ids[original])
        single = [one for one, original in enumerate(originals) if one == original]
        signatures = (
            np.stack([self.signatures[one] for one in single]) if single else np.empty((0, settings.bands * settings.rows), np.uint32)
        )
        for row, leader in enumerate(clusters(signatures, settings)):
            if leader != row:
                value = similarity(signatures[leader], signatures[row])
                refusal = Rejection("near_duplicate", "similarity", value, settings.threshold)
                verdicts[self.places[single[row]]] = (refusal, self.ids[single[leader]])
        kept = [one for one in single if self.places[one] not in verdicts]
        self.held_out = {self.places[one] for one in chosen([self.keys[one] for one in kept], kept, recipe.held_out, seed)}
        return verdicts


def chosen(keys: list[bytes], names: list[int], share: float, seed: int) -> list[int]:
    """The held-out ones: those whose text hashes below `share`, so a page stays on its side when others come or go; one at least of two."""
    numbers = [xxhash.xxh3_64_intdigest(key, seed=seed % 2**64) / 2**64 for key in keys]
    found = [name for name, number in zip(names, numbers, strict=True) if number < share]
    if not found and share > 0 and len(names) > 1:
        found = [names[numbers.index(min(numbers))]]
    return found


def route(folder: Path, spool: Path, verdicts: dict[int, tuple[Rejection, str]], held_out: set[int], funnel: Funnel) -> None:
    """The second pass: each spooled row to its file."""
    with (
        TableWriter(folder / "kept.parquet", KEPT) as kept,
        TableWriter(folder / "held_out.parquet", KEPT) as held,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        for place, row in enumerate(read_rows(spool)):
            duplicate_of = ""
            if place in verdicts:
                refusal, duplicate_of = verdicts[place]
                row |= {"reason": refusal.reason, "measure": refusal.measure, "value": refusal.value, "threshold": refusal.threshold}
            funnel.count(row, place in held_out)
            if row["reason"]:
                dropped.add(dropped_row(row, duplicate_of))
            else:
                (held if place in held_out else kept).add(kept_row(row))
