"""WARC records (ISO 28500): pages of response, resource, revisit and conversion (WET) records."""

import re
from functools import partial

from data_pipeline.web.reading.archive import MAX_HEAD, Archive, Head, Wrong
from data_pipeline.web.reading.http import http_page
from data_pipeline.web.reading.records import Page

FIRST = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")


def begins_warc(data: bytes) -> bool:
    return FIRST.match(data.lstrip(b"\r\n")) is not None


class Warc(Archive):
    """A WARC file."""

    kind = "a WARC"
    first = FIRST
    # Not at line starts only: a record that is cut ends within a line.
    line = re.compile(rb"(WARC/\d\.\d+[ \t]*\r?\n(?:WARC-|Content-)[A-Za-z-]{1,60}:)", re.IGNORECASE)

    def head(self) -> Head:
        headers = self.header_lines()
        kind = headers.get("warc-type", "").lower()
        if not re.fullmatch(r"\d{1,18}", length := headers.get("content-length", "")):
            raise Wrong(f"a record with the Content-Length {length[:40]!r}")
        wanted = kind in ("response", "resource", "revisit", "conversion")
        make = partial(warc_page, kind, headers, self.limits.max_page_bytes)
        return Head(int(length), make if wanted else nothing, wanted, information=kind == "warcinfo")

    def header_lines(self) -> dict[str, str]:
        window = self.window
        window.fill(16)
        if not FIRST.match(window.data, window.at):
            raise Wrong("no WARC record where one should begin")
        size = 2048
        while not (end := HEAD_END.search(window.data, window.at, window.at + size)):
            if window.left >= size:
                if size >= MAX_HEAD:
                    raise Wrong(f"the header of a record is longer than {MAX_HEAD:,} bytes")
                size *= 2
            elif window.fill(size) < size and not HEAD_END.search(window.data, window.at):
                raise Wrong("truncated: within the header of a record")
        text = bytes(window.data[window.at : end.start()]).decode("utf-8", errors="replace")
        window.at = end.end()
        return header_dict(text.splitlines()[1:])


def header_dict(lines: list[str]) -> dict[str, str]:
    """Header lines by name in lower case; the first of a name counts, continued lines are joined."""
    found: dict[str, str] = {}
    last = ""
    for line in lines:
        if line[:1] in (" ", "\t") and last:
            found[last] += " " + line.strip()
            continue
        name, mark, value = line.partition(":")
        last = ""
        if mark and (key := name.strip().lower()) not in found:
            found[key] = value.strip()
            last = key
    return found


def nothing(name: str, block: bytes, snapshot: str, length: int) -> None:
    return None


def warc_page(kind: str, headers: dict[str, str], max_bytes: int, name: str, block: bytes, snapshot: str, length: int) -> Page:
    """The page of a record's block."""
    url = headers.get("warc-target-uri", "").removeprefix("<").removesuffix(">").strip()
    fetched = headers.get("warc-date", "")
    if kind == "revisit":
        return Page(name, url, b"", "", "revisit", fetched=fetched)
    if kind == "conversion":
        if length > max_bytes:
            return Page(name, url, b"", "", "too_large", float(length), fetched=fetched)
        known = {"language": headers.get("warc-identified-content-language", ""), "snapshot": snapshot}
        text = block.decode("utf-8", errors="replace")
        return Page(name, url, b"", "", text=text, fetched=fetched, metadata={key: value for key, value in known.items() if value})
    return http_page(name, url, headers.get("content-type", ""), block, length, max_bytes, fetched, snapshot)
