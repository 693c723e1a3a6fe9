"""WARC (ISO 28500), WET and ARC files, record by record: every good record of a damaged file, and where reading goes on behind each."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_pipeline.web.reading.head import head_metadata
from data_pipeline.web.reading.http import content_type, headers_of, split_response, undone
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.page import Broken, Page, Place
from data_pipeline.web.reading.stream import Damage, Records

LINE = 65_536  # bytes of a header line
HEADERS = 1_000  # lines of a header
MARKS = (b"WARC/1.", b"WARC/0.")
HTML_TYPES = ("text/html", "application/xhtml+xml")
PAGES = ("response", "resource", "revisit", "conversion")
SNAPSHOT = re.compile(r"CC-MAIN-\d{4}-\d{2,}")
# ARC version 1: address, IP address, date, media type, length. Addresses may hold spaces.
ARC_LINE = re.compile(rb"(\S.*) ([0-9a-fA-F.:]+) (\d{12,18}) (\S+) (\d+)\s*\Z")


@dataclass
class Record:
    """One record, its body within the limits."""

    kind: str
    url: str
    date: str
    type: str
    headers: dict[str, str]
    body: bytes = b""
    length: int = 0
    too_large: bool = False


@dataclass
class Reader:
    """Reads the records of one file; `name` begins the ids of its pages."""

    records: Records
    path: str
    name: str
    limits: ReadLimits
    arc: bool = False
    place: Place = field(default_factory=Place)
    snapshot: str = ""

    def pages(self) -> Iterator[Page | Broken]:
        """Every page from the place where the reader stands, and every damage."""
        self.snapshot = found[0] if (found := SNAPSHOT.search(self.path)) else self.place.snapshot
        number, broken, skip = self.place.record, self.place.broken, self.place.skip
        while True:
            try:
                if not self.records.next_record():
                    return
                where = self.records.offset
                record = self.read_arc() if self.arc else self.read_warc()
                following, inside = self.records.following()
                if skip:  # they lie before the place where reading goes on
                    skip -= 1
                    continue
                number += 1
                if record is not None:
                    page = self.page_of(record, f"{self.name}:{where}:{number}")
                    if page is not None:
                        yield replaced(page, Place(where, number, following, inside, broken, self.snapshot))
            except Damage as damage:
                broken += 1
                where = self.records.offset
                yield Broken(f"{self.path}: {damage}, in the record at byte {where:,}", Place(where, number, where, 0, broken))
                if not self.again():
                    return
                skip = 0

    def again(self) -> bool:
        """Goes on at the next record behind a damage."""
        if not self.records.source.goes_back():
            return False
        marks = (b"http://", b"https://", b"filedesc:") if self.arc else MARKS
        return self.records.find_again(marks)

    def read_warc(self) -> Record | None:
        """The record at which the stream stands."""
        version = self.records.line(LINE)
        if not version.startswith(MARKS):
            raise Damage("bytes that begin no WARC record")
        headers = self.header_lines()
        told = headers.get("content-length", "")
        if not (told.isascii() and told.isdecimal()):
            raise Damage(f"a Content-Length of {told[:40]!r}")
        record = Record(
            headers.get("warc-type", "").lower(),
            headers.get("warc-target-uri", "").removeprefix("<").removesuffix(">"),
            headers.get("warc-date", ""),
            headers.get("content-type", ""),
            headers,
            length=int(told),
        )
        self.read_body(record, record.kind in PAGES or record.kind == "warcinfo")
        return record

    def header_lines(self) -> dict[str, str]:
        lines: list[str] = []
        while (line := self.records.line(LINE)).strip(b"\r\n"):
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if len(lines) > HEADERS:
                raise Damage(f"a header of more than {HEADERS:,} lines")
        return headers_of(lines)

    def read_body(self, record: Record, wanted: bool) -> None:
        """The body of a record, or nothing of one that is too large or not wanted; what is not there is a damage."""
        record.too_large = record.length > self.limits.max_record_bytes
        if wanted and not record.too_large:
            record.body = self.records.take(record.length)
            there = len(record.body)
        else:
            there = self.records.skip(record.length)
        if there < record.length:
            raise Damage(f"truncated: {there:,} of {record.length:,} bytes are there")
        self.records.reading = False
        behind = self.records.peek(4)
        if behind and behind[:1] not in (b"\r", b"\n") and not self.arc:
            raise Damage("a record that does not end where its Content-Length says")

    def read_arc(self) -> Record | None:
        """The ARC record at which the stream stands; None for the file's own description."""
        line = self.records.line(LINE)
        if line.startswith(b"filedesc:"):
            told = line.split()[-1]
            if told.isdigit():
                self.records.skip(int(told))
            else:  # the length is not told: two lines
                self.records.line(LINE)
                self.records.line(LINE)
            return None
        found = ARC_LINE.match(line)
        if found is None:
            raise Damage(f"no ARC record: {line[:60]!r}")
        url, _, date, kind, length = (part.decode("utf-8", "replace") for part in found.groups())
        iso = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14] or '00'}Z"
        record = Record("response", url, iso, kind, {}, length=int(length))
        self.read_body(record, wanted=True)
        return record

    def page_of(self, record: Record, name: str) -> Page | None:
        """The page of a record; None for records that hold none."""
        if record.kind == "warcinfo":
            text = record.body.decode("utf-8", "replace")
            said = headers_of(text.splitlines()).get("ispartof", "")
            self.snapshot = self.snapshot or said.strip()
            return None
        if record.kind not in PAGES:
            return None
        about = {"snapshot": self.snapshot} if self.snapshot else {}
        bare = Page(name, record.url, fetched=record.date, metadata=about)
        if record.too_large:
            return replaced(bare, problem="too_large", value=float(record.length))
        if record.kind == "revisit":
            return replaced(bare, problem="revisit")
        if record.kind == "conversion":
            return replaced(bare, text=record.body.decode("utf-8", "replace"))
        return self.fetched(record, bare)

    def fetched(self, record: Record, bare: Page) -> Page:
        """The page of a response or resource."""
        status, headers, body = split_response(record.body)
        kind, charset = content_type(headers if status is not None else {"content-type": record.type})
        if status is not None and not 200 <= status < 300:
            return replaced(bare, problem="http_status", value=float(status))
        html = undone(body, headers, self.limits.max_page_bytes)
        if len(html) > self.limits.max_page_bytes:
            return replaced(bare, problem="too_large", value=float(len(html)))
        if kind in ("application/http", "application/octet-stream"):
            kind = ""
        if kind not in HTML_TYPES and not (not kind and looks_like_html(html)):
            return replaced(bare, problem="not_html", value=float(len(html)))
        return replaced(bare, html=html, charset=charset, metadata=bare.metadata | head_metadata(headers, html))


def replaced(page: Page, place: Place | None = None, **others: object) -> Page:
    """The page with other fields."""
    return dataclasses.replace(page, **({"place": place} if place is not None else {}), **others)  # type: ignore[arg-type]


def looks_like_html(body: bytes) -> bool:
    start = body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<") and any(mark in start for mark in (b"<html", b"<!doctype html", b"<body", b"<head", b"<p", b"<div"))
