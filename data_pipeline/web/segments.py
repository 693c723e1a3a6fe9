"""Measured pages on any store, a segment at a time: Parquet files that appear whole, so that a killed build goes on inside a file.

    <folder>/<name of the crawl file>/00000.parquet, 00001.parquet, ...

Each segment says in its metadata what it was measured with, where reading goes on behind it, and what was broken before its last page; the
last one of a file says that the file ended. A segment is cut by its rows alone, so a build that was killed makes the segments that an
undisturbed one makes.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.measured import Measured
from data_pipeline.web.reading import Place
from data_pipeline.web.tables import PERSONAL, PROBLEM, SEGMENT, VALUES

ROWS = 1024
BYTES = 64_000_000  # of text; a segment is cut at the first page past either
METADATA = b"phial"


@dataclass(frozen=True)
class Facts:
    """What a segment says of itself."""

    fingerprint: str  # of the file and of everything that decides what is measured
    place: dict[str, Any] | None = None  # where reading goes on behind the last page; None before the first
    broken: tuple[str, ...] = ()  # one line for each damage met before the last page
    ends: bool = False  # the file ends with this segment


@dataclass
class OpenSegment:
    """The pages since the last cut."""

    pages: list[Measured] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, page: Measured) -> None:
        self.pages.append(page)
        self.bytes += len(page.text) + 500

    @property
    def full(self) -> bool:
        return len(self.pages) >= ROWS or self.bytes >= BYTES


def file_folder(folder: str, name: str) -> str:
    """Where the segments of a file lie; its name may have strokes in it."""
    return f"{folder}/{name.replace('/', '~')}"


def segment_path(folder: str, name: str, number: int) -> str:
    return f"{file_folder(folder, name)}/{number:05d}.parquet"


def write_segment(path: str, file: str, pages: list[Measured], facts: Facts) -> None:
    """One segment, atomically."""
    said = json.dumps(dataclasses.asdict(facts), ensure_ascii=True, sort_keys=True).encode()
    schema = SEGMENT.with_metadata({METADATA: said})
    batch = pa.RecordBatch.from_arrays(columns(pages, file), schema=schema)
    with storage.atomic_write(path) as stream:
        pq.write_table(pa.Table.from_batches([batch]), stream, compression="zstd", compression_level=1, row_group_size=ROWS)


def columns(pages: list[Measured], file: str) -> list[pa.Array]:
    """The columns of SEGMENT, in its order."""
    found: dict[str, list[Any]] = {
        "id": [clean(one.page.id) for one in pages],
        "file": [clean(file)] * len(pages),
        "offset": [int(one.page.id.rsplit(":", 2)[1]) for one in pages],
        "record": [int(one.page.id.rsplit(":", 2)[2]) for one in pages],
        "url": [clean(one.page.url) for one in pages],
        "domain": [clean(one.domain) for one in pages],
        "html_bytes": [one.html_bytes for one in pages],
        "text_bytes": [len(one.text.encode("utf-8", "replace")) for one in pages],
        "language": [one.language.code for one in pages],
        "second_language": [one.language.second for one in pages],
        "language_distance": [one.language.distance if one.text else None for one in pages],
        "extraction": [one.extraction for one in pages],
        "quality": [one.quality.value if one.quality else None for one in pages],
        "quality_kind": [one.quality.kind if one.quality else "" for one in pages],
        "quality_kind_probability": [one.quality.kind_probability if one.quality else None for one in pages],
        "text_key": [one.text_key for one in pages],
        "address_key": [one.address_key for one in pages],
        "signature": [one.signature for one in pages],
        "hits": [one.hits for one in pages],
        "text": [clean(one.text) for one in pages],
        "fetched": [clean(one.page.fetched) for one in pages],
    }
    for name in ("snapshot", "robots", "licence"):
        found[name] = [clean(one.page.metadata.get(name, "")) for one in pages]
    for name, _ in VALUES:
        found[name] = [None if one.values is None else getattr(one.values, name) for one in pages]
    for kind in PERSONAL:
        found[f"personal_{kind}"] = [one.personal.get(kind, 0) for one in pages]
    for (name, _), part, empty in zip(PROBLEM, ("reason", "measure", "value", "threshold"), ("", "", 0.0, 0.0), strict=True):
        found[name] = [empty if one.problem is None else getattr(one.problem, part) for one in pages]
    return [pa.array(found[field.name], field.type) for field in SEGMENT]


def clean(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def facts_of(path: str) -> Facts | None:
    """What a segment says of itself; None where it is no segment of ours."""
    try:
        with storage.open_read(path) as stream:
            metadata = pq.read_schema(stream).metadata or {}
        said = json.loads(metadata[METADATA])
        return Facts(**said | {"broken": tuple(said["broken"])})
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Begun:
    """How far a file has been measured."""

    segments: int = 0
    place: Place | None = None
    ends: bool = False
    pages: int = 0


def begun(folder: str, name: str, fingerprint: str) -> Begun:
    """The segments of a file that are there and were measured with what `fingerprint` stands for."""
    store, inside = storage.filesystem(file_folder(folder, name))
    if not store.exists(inside):
        return Begun()
    place, number, pages = None, 0, 0
    while store.exists(storage.filesystem(segment_path(folder, name, number))[1]):
        facts = facts_of(segment_path(folder, name, number))
        if facts is None or facts.fingerprint != fingerprint:
            break
        place = Place(**facts.place) if facts.place else place
        number += 1
        if facts.ends:
            return Begun(number, place, True, pages)
    return Begun(number, place, False, pages)


def finished_segments(folder: str, name: str, fingerprint: str) -> list[str]:
    """The segments of a finished file, in order; an error where one is missing."""
    found = begun(folder, name, fingerprint)
    if not found.ends:
        raise InputError(f"{folder}/{name}: its segments end before the file does; run the same command again")
    return [segment_path(folder, name, number) for number in range(found.segments)]


def read_segment(path: str, names: list[str], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """The named columns of a segment."""
    with storage.open_read(path) as stream:
        yield from pq.ParquetFile(stream).iter_batches(columns=names, batch_size=rows)
