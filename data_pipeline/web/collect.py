"""Raw pages into a crawl folder: the user's WARC files by reference, or the standard library's pages written as a WARC file."""

import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder
from data_pipeline.web.generated_pages import GeneratedPage, generated_pages
from data_pipeline.web.recipe import CollectRecipe
from data_pipeline.web.standard_library import library_pages, module_names, page_url
from data_pipeline.web.warc_writer import WarcWriter

SOURCES = "sources.json"
# Of so many remote files the first records are looked at; the others are believed.
REMOTE_SAMPLE = 8
WEB_FILES = re.compile(r"\.(?:(?:warc|wet|arc|jsonl|html?)(?:\.gz|\.zst)?|parquet)$")
OWN_NOTES = {"truth.jsonl", "gold.jsonl"}  # what generators say of their pages
OWN_FILES = {SOURCES, "pages.warc.gz", "truth.jsonl"}


def collect(recipe: CollectRecipe, out: Path, seed: int, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Writes the crawl folder `out` and returns its record (what `sources.json` says).

    A crawl that the recipe names is not copied: its addresses are written down, and `build` reads them in place.
    """
    check_place(out)
    if recipe.warc:
        return refer(recipe.warc, recipe.prefix, out)
    names = module_names()
    real: list[tuple[str, str]] = []
    failed: dict[str, str] = {}
    for number, rendered in enumerate(library_pages(names, recipe.module_seconds), 1):
        if rendered.error:
            failed[rendered.module] = rendered.error
        else:
            real.append((page_url(rendered.module), rendered.html))
        if progress is not None:
            progress(number, len(names))
    if not real:
        raise InputError(f"{out}: no module of the standard library could be rendered ({len(failed)} failed); give a crawl with --warc")
    extra = list(generated_pages(recipe, originals_of(real), seed)) if recipe.bad_pages else []
    record = {
        "format": 1,
        "sources": ["pages.warc.gz"],
        "pages": len(real) + len(extra),
        "library_pages": len(real),
        "generated_pages": dict(sorted(Counter(one.kind for one in extra).items())),
        "modules_without_page": failed,
        "html_bytes": sum(len(html.encode()) for _, html in real) + sum(len(one.html.encode()) for one in extra),
    }
    with storage.atomic_folder(out) as folder:
        with storage.atomic_write(folder / "pages.warc.gz") as stream:
            writer = WarcWriter(stream, "standard library pages rendered by pydoc, with generated pages; dates are fixed")
            for url, html in mixed(real, extra, seed):
                writer.response(url, html.encode("utf-8"))
        storage.write_json_lines(folder / "truth.jsonl", (truth_row(one) for one in extra))
        storage.write_json(folder / SOURCES, record)
    return record


def check_place(out: Path) -> None:
    """Refuses a place that cannot be written, and a folder with anything in it that `collect` did not write: it would be replaced."""
    RunFolder.open(out.parent)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file stands there; the crawl folder must be a folder")
    storage.refuse_foreign(out, OWN_FILES, "a collected crawl")


def originals_of(real: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pages that copies are made of: neither so short that a notice changes much nor so long that copies fill the crawl.

    Of those the half that compresses least, since a page that mostly repeats itself is dropped with its copies.
    """
    middle = [(url, html) for url, html in real if 20_000 <= len(html) <= 80_000]
    by_repetition = sorted(middle, key=lambda page: (-len(zlib.compress(page[1].encode())) / len(page[1]), page[0]))
    return sorted(by_repetition[: (len(middle) + 1) // 2])


def mixed(real: list[tuple[str, str]], extra: list[GeneratedPage], seed: int) -> list[tuple[str, str]]:
    """Real pages in their order with the generated ones between them; a copy always comes after its original."""
    chance = random.Random(f"{seed} mixing")
    place_of = {url: place for place, (url, _) in enumerate(real)}
    placed = [(float(place), url, html) for place, (url, html) in enumerate(real)]
    for one in extra:
        first = place_of.get(one.copy_of, -1)
        placed.append((chance.uniform(first + 0.001, len(real)), one.url, one.html))
    return [(url, html) for _, url, html in sorted(placed, key=lambda row: row[:2])]


def truth_row(one: GeneratedPage) -> dict[str, Any]:
    return {"url": one.url, "kind": one.kind, "expect": one.expect, "personal": list(one.personal), "copy_of": one.copy_of}


def refer(patterns: Sequence[str], prefix: str, out: Path) -> dict[str, Any]:
    """Writes down the files that paths, URLs, globs and lists name. Every local file is looked into, of remote ones a sample."""
    from data_pipeline.web.warc_reader import has_pages

    paths = list(dict.fromkeys(path for pattern in patterns for path in named(pattern, prefix)))
    remote = [path for path in paths if not storage.is_local(path)]
    looked_at = set(remote[:: -(-len(remote) // REMOTE_SAMPLE)]) if remote else set()
    looked_at.update(path for path in paths if storage.is_local(path))
    empty = [path for path in paths if path in looked_at and not has_pages(path)]
    if len(empty) == len(paths):
        pattern = ", ".join(patterns)
        raise InputError(f"{pattern}: an empty crawl: no web page in {'it' if len(paths) == 1 else f'any of {len(paths)} files'}")
    record: dict[str, Any] = {"format": 1, "sources": paths, "files_without_pages": empty}
    with storage.atomic_folder(out) as folder:
        storage.write_json(folder / SOURCES, record)
    return record


def named(pattern: str, prefix: str) -> list[str]:
    """The files behind one `--warc`, local ones by their whole paths."""
    from data_pipeline.web.path_lists import is_list, listed

    found = [path for one in storage.expand(pattern) for path in (listed(one, prefix) if is_list(one) else [one])]
    return [str(Path(path).resolve()) if storage.is_local(path) else path for path in found]


def sources(crawl: Path) -> list[str]:
    """The files of a crawl folder: those that `collect` wrote down, else every file in it whose name is that of web data."""
    if (crawl / SOURCES).exists():
        try:
            names = storage.read_json(crawl / SOURCES)["sources"]
            return [str(crawl / name) if storage.is_local(name) else name for name in names]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{crawl / SOURCES}: a list under 'sources' is needed") from error
    there = sorted(crawl.iterdir()) if crawl.is_dir() else []
    found = [str(path) for path in there if WEB_FILES.search(path.name) and path.name not in OWN_NOTES]
    if not found:
        raise InputError(f"{crawl}: no crawl there; run `phial data collect {crawl}` first, or put WARC files into it")
    return found
