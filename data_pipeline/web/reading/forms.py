"""One way to read web data: the form of a file is told by its first bytes, and every form gives pages, damages and places to go on from."""

import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import xxhash

from data_pipeline.errors import InputError
from data_pipeline.storage import filesystem, is_local
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.page import Broken, Page, Place
from data_pipeline.web.reading.rows import json_rows, parquet_rows
from data_pipeline.web.reading.stream import GzipRecords, PlainRecords, Source
from data_pipeline.web.reading.warc import Reader, looks_like_html

FORMS = "WARC, WET, ARC, HTML, Parquet or JSON lines"
SNIFFED = 4096


def read_records(path: str, *, limits: ReadLimits | None = None, start: Place | None = None, name: str = "") -> Iterator[Page | Broken]:
    """Every page of a file, and every damage, in their order; from behind `start`, the place of a page, if that is given.

    `name` begins the pages' ids; by default the file's own name. At most `limits.max_broken` damages are told one by one, then one that
    says how many more there are. Raises InputError for a file that is missing, is of no known form, or cannot be read from its store.
    """
    limits = limits or ReadLimits()
    name = name or PurePosixPath(path).name
    with opened(path) as stream:
        told = start.broken if start is not None else 0
        more = max(told - limits.max_broken, 0)
        for one in records_of(stream, path, name, limits, start):
            if not isinstance(one, Broken):
                yield one
            elif told < limits.max_broken:
                told += 1
                yield one
            else:
                more += 1
        if more:
            yield Broken(f"{path}: {more:,} more damages, {limits.max_broken:,} were told")


def records_of(stream: IO[bytes], path: str, name: str, limits: ReadLimits, start: Place | None) -> Iterator[Page | Broken]:
    """The records of an open file."""
    source = Source(stream, path, SNIFFED)
    first = source.first
    if not first:
        raise InputError(f"{path}: an empty file; {FORMS} is needed")
    packed = first[:2] == b"\x1f\x8b"
    form = form_of(unpacked(first, path) if packed else first, path)
    if form == "parquet":
        yield from parquet_rows(stream, path, name, limits, start)
    elif form == "json":
        yield from json_rows(stream, path, name, limits, start)
    elif form == "html":
        if start is None:
            yield html_page(source, path, name, limits)
    else:
        place = start.next if start is not None else 0
        records = GzipRecords(source, place, limits.max_expansion) if packed else PlainRecords(source, place)
        yield from Reader(records, path, name, limits, form == "arc", start or Place()).pages()


def form_of(first: bytes, path: str) -> str:
    """The form that a file's first bytes show."""
    start = first.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if start.startswith(b"WARC/"):
        return "warc"
    if start.startswith(b"filedesc:"):
        return "arc"
    if first.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"{"):
        return "json"
    if looks_like_html(first) or (path.endswith((".html", ".htm", ".html.gz", ".htm.gz")) and start.startswith(b"<")):
        return "html"
    raise InputError(f"{path}: {FORMS} is needed; the file begins with {first[:24]!r}")


def unpacked(first: bytes, path: str) -> bytes:
    """The first unpacked bytes of a gzip file."""
    try:
        return zlib.decompressobj(wbits=31).decompress(first, SNIFFED)
    except zlib.error as error:
        raise InputError(f"{path}: damaged gzip data at its beginning ({error}); {FORMS} is needed") from error


def html_page(source: Source, path: str, name: str, limits: ReadLimits) -> Page:
    """A file that is one page."""
    data = source.read() + source.read(limits.max_record_bytes)
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, limits.max_page_bytes + 1)
        except zlib.error as error:
            raise InputError(f"{path}: damaged gzip data ({error})") from error
    place = Place(0, 1, 1)
    url = path if "://" in path else ""
    if len(data) > limits.max_page_bytes:
        return Page(f"{name}:0:1", url, problem="too_large", value=float(len(data)), place=place)
    return Page(f"{name}:0:1", url, html=data, place=place)


def opened(path: str) -> Any:
    """The file as a stream; what a store raises becomes one line."""
    store, inside = filesystem(path)
    try:
        if is_local(path) and store.isdir(inside):
            raise InputError(f"{path}: a folder; a file is needed")
        return store.open(inside, "rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {FORMS} is needed") from error
    except InputError:
        raise
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: cannot be opened: {type(error).__name__}: {error}") from error


def names_of(paths: list[str]) -> list[str]:
    """A short name for each file, distinct and the same whatever other files there are of other names: its own, with a mark where two share it."""
    own = [PurePosixPath(path).name or "file" for path in paths]
    shared = {name for name in own if own.count(name) > 1} if len(set(own)) < len(own) else set()
    return [f"{name}~{xxhash.xxh32_hexdigest(path.encode())}" if name in shared else name for name, path in zip(own, paths, strict=True)]


def has_pages(path: str) -> bool:
    """Whether a file holds at least one page with something in it."""
    return any(isinstance(one, Page) and not one.problem for one in read_records(path))
