"""ARC files, versions 1 and 2: what the Internet Archive wrote before WARC. A line, then as many bytes as it says."""

import re
from functools import partial

from data_pipeline.web.reading.archive import Archive, Head, Wrong
from data_pipeline.web.reading.http import http_page
from data_pipeline.web.reading.records import Page

# URL (blanks may stand in it), address, date, media type, in version 2 five more fields, length.
LINE = rb"[a-z][a-z0-9+.-]{1,20}:[^\r\n]{1,8000} [0-9a-fA-F.:-]{1,45} \d{8,20} [^ \r\n]{1,200}(?: [^ \r\n]{1,2000}){0,5} "
FIRST = re.compile(LINE + rb"[^ \r\n]{1,20}\r?\n")
FIELDS = re.compile(rb"(.{1,8100}) ([0-9a-fA-F.:-]{1,45}) (\d{8,20}) ([^ ]{1,200})(?: [^ ]+ [^ ]+ [^ ]+ [^ ]+ [^ ]+)? ([^ ]{1,20})")
FILE = b"filedesc:"


def begins_arc(data: bytes) -> bool:
    return FIRST.match(data.lstrip(b"\r\n")) is not None


class Arc(Archive):
    """An ARC file."""

    kind = "an ARC"
    first = FIRST
    line = re.compile(rb"(?<=\n)(" + LINE + rb"[^ \r\n]{1,20}\r?\n)")

    def head(self) -> Head:
        window = self.window
        window.fill(16_000)
        end = window.data.find(b"\n", window.at, window.at + 16_000)
        line = bytes(window.data[window.at : end]).rstrip(b"\r")
        fields = FIELDS.fullmatch(line) if end >= 0 else None
        if fields is None:
            raise Wrong("no ARC record where one should begin")
        if not re.fullmatch(rb"\d{1,18}", fields[5]):
            raise Wrong(f"a record with the length {fields[5].decode('latin-1')!r}")
        window.at = end + 1
        url = fields[1].decode("utf-8", errors="replace")
        if line.startswith(FILE):
            return Head(int(fields[5]), lambda *_: None, False)
        page = partial(arc_page, url, fields[3].decode(), fields[4].decode("latin-1"), self.limits.max_page_bytes)
        return Head(int(fields[5]), page, url.startswith(("http:", "https:")))


def arc_page(url: str, date: str, kind: str, max_bytes: int, name: str, block: bytes, snapshot: str, length: int) -> Page:
    """The page of a record's block; the date as WARC writes it."""
    d = date[:14].ljust(14, "0")
    fetched = f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[8:10]}:{d[10:12]}:{d[12:14]}Z"
    return http_page(name, url, "" if kind == "no-type" else kind, block, length, max_bytes, fetched, snapshot)
