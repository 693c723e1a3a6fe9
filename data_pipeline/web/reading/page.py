"""What reading yields: pages, each with the place behind it, and damages."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a record lies, and all that is needed to go on behind it."""

    offset: int = 0  # WARC, ARC: byte of the gzip member or record; JSON lines: byte of the line; Parquet: row
    record: int = 0  # number of the record in the file, from 1
    next: int = 0  # as `offset`, of what follows
    skip: int = 0  # records of the gzip member at `next` that lie before what follows
    broken: int = 0  # damages met so far
    snapshot: str = ""  # what the file's own description said, which lies before

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Page:
    """One page of a crawl: HTML, or text where the source holds text."""

    id: str  # name of the file, offset and number of the record
    url: str
    html: bytes = b""  # decoded of transfer and content coding; empty when `problem` says why
    text: str = ""  # of WET, Parquet and JSON lines
    charset: str = ""  # as the HTTP header declares it
    problem: str = ""  # "http_status", "not_html", "too_large", "revisit"
    value: float = 0.0  # the measured value behind the problem
    fetched: str = ""  # ISO 8601, UTC
    place: Place = Place()
    metadata: dict[str, str] = field(default_factory=dict)  # robots, licence, language, snapshot, where the source says them

    def without_body(self) -> "Page":
        return dataclasses.replace(self, html=b"", text="")


@dataclass(frozen=True)
class Broken:
    """A damage: one line that says where, and what was lost."""

    line: str
    place: Place = Place()
