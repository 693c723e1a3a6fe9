"""The files of a crawl to measured segments: pages are read in order, measured in worker processes, and stored segment by segment."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from data_pipeline import storage
from data_pipeline.engine.journal import fingerprint
from data_pipeline.errors import InputError
from data_pipeline.web.domains import registered_domain
from data_pipeline.web.measured import Measured, measure_page, size_of, warm_up
from data_pipeline.web.reading import Broken, NotWebData, Page, Place, names_of, read_records
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.segments import Facts, OpenSegment, begun, clean, file_folder, segment_path, write_segment
from data_pipeline.web.workers import Killed, Pool

FORMAT = 2  # raised when the same page and recipe give other measured values


@dataclass(frozen=True)
class CrawlFile:
    """One file of a crawl: where it is, its short name, and the fingerprint of it and of everything that decides what is measured."""

    path: str
    name: str
    fingerprint: str


def crawl_files(recipe: WebRecipe, paths: list[str]) -> list[CrawlFile]:
    """The files in their order; one that is missing is an error of one line."""
    settings = measuring(recipe)
    return [CrawlFile(path, name, fingerprint(FORMAT, settings, identity(path))) for path, name in zip(paths, names_of(paths), strict=True)]


def measuring(recipe: WebRecipe) -> dict[str, Any]:
    """What of a recipe decides the measured values; thresholds do not."""
    from data_pipeline.web.contamination_step import fingerprint_of as of_benchmarks
    from data_pipeline.web.url_rules import fingerprint_of as of_addresses

    return {
        "languages": recipe.languages,
        "language_margin": recipe.language_margin,
        "max_language_distance": recipe.max_language_distance,  # near it a second opinion is asked for
        "drop_repeated_paragraphs": recipe.drop_repeated_paragraphs,
        "mask_personal_data": recipe.mask_personal_data,
        "signature": [recipe.duplicates.shingle_words, recipe.duplicates.bands, recipe.duplicates.rows],
        "limits": recipe.limits.model_dump(mode="json"),
        "page_seconds": recipe.page_seconds,
        "addresses": of_addresses(recipe.addresses),
        "quality": recipe.quality.fingerprint(),
        "benchmarks": of_benchmarks(recipe.decontamination),
    }


def identity(path: str) -> list[Any]:
    """What tells a file from another version of itself without reading it: its size, and the time or tag that its store gives."""
    store, inside = storage.filesystem(path)
    try:
        facts = store.info(inside)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there any more; collect the crawl again") from error
    tag = next((str(facts[key]) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if facts.get(key)), "")
    return [facts.get("size"), tag]


def records_of(file: CrawlFile, recipe: WebRecipe, start: Place | None) -> Iterator[Page | Broken]:
    """A file's pages and damages; one that holds no web data at all is one damage, so that it does not stop a crawl of thousands."""
    try:
        yield from read_records(file.path, limits=recipe.limits, start=start, name=file.name)
    except NotWebData as error:
        yield Broken(str(error))


@dataclass
class Event:
    """What reading met, in order: a page, a damage, or a file's end."""

    file: CrawlFile
    number: int  # of the segment that is open when the file's reading begins
    page: bool = False
    broken: str = ""
    place: Place | None = None


class CrawlMeasurer:
    """Measures files one after another; only what no earlier run has stored is read."""

    def __init__(self, recipe: WebRecipe, folder: str, progress: Callable[[int], None] | None = None, workers: int | None = None) -> None:
        self.recipe = recipe
        self.folder = folder
        self.progress = progress
        self.workers = recipe.workers if workers is None else workers
        self.events: deque[Event] = deque()
        self.open = OpenSegment()
        self.number = 0
        self.pages = 0
        self.html_bytes = 0

    def measure(self, files: list[CrawlFile]) -> None:
        """Every file whole; killed at any time, the same call goes on behind the last segment."""
        if all(begun(self.folder, file.name, file.fingerprint).ends for file in files):
            return
        warm_up(self.recipe)  # compiled once here, not once in each worker
        pool = Pool(measure_page, self.recipe, self.workers, self.recipe.page_seconds, prepare=warm_up)
        for result in pool.map(self.read(files)):
            self.settle_events()
            event = self.events.popleft()
            self.store_page(event, self.killed(result) if isinstance(result, Killed) else result)
        self.settle_events()

    def read(self, files: list[CrawlFile]) -> Iterator[Page]:
        """The pages that are still to be measured; everything else that reading meets is noted between them."""
        for file in files:
            found = begun(self.folder, file.name, file.fingerprint)
            if found.ends:
                continue
            if not found.segments:
                self.forget(file)
            place = found.place
            for one in records_of(file, self.recipe, place):
                if isinstance(one, Broken):
                    self.events.append(Event(file, found.segments, broken=one.line))
                else:
                    place = one.place
                    self.events.append(Event(file, found.segments, page=True))
                    yield one
            self.events.append(Event(file, found.segments, place=place))

    def forget(self, file: CrawlFile) -> None:
        """Removes segments that were measured with something else."""
        store, inside = storage.filesystem(file_folder(self.folder, file.name))
        if store.exists(inside):
            store.rm(inside, recursive=True)

    def settle_events(self) -> None:
        """Damages and ends that stand before the next page."""
        while self.events and not self.events[0].page:
            event = self.events.popleft()
            if event.broken:
                self.open.broken.append(clean(event.broken))
            else:
                self.cut(event, event.place, ends=True)
                self.number = 0

    def store_page(self, event: Event, page: Measured) -> None:
        self.open.add(page)
        self.pages += 1
        self.html_bytes += page.html_bytes
        if self.progress is not None:
            self.progress(self.pages)
        if self.open.full:
            self.cut(event, page.page.place, ends=False)

    def cut(self, event: Event, place: Place | None, ends: bool) -> None:
        """Stores the open segment."""
        facts = Facts(event.file.fingerprint, place.as_dict() if place is not None else None, tuple(self.open.broken), ends)
        path = segment_path(self.folder, event.file.name, event.number + self.number)
        write_segment(path, event.file.path, self.open.pages, facts)
        self.open = OpenSegment()
        self.number += 1

    def killed(self, result: Killed) -> Measured:
        """A page over which its worker died: too long or too much memory."""
        page = replace(result.task, html=b"", text="")
        refusal = Rejection("extraction_killed", "cpu_seconds", result.seconds, result.seconds)
        return Measured(page, size_of(result.task), registered_domain(page.url), problem=refusal)
