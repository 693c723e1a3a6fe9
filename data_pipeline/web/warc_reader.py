"""WARC files, read: the pages of a crawl with the file and byte offset of each, and one line where a file is broken."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from data_pipeline.errors import InputError
from data_pipeline.storage import filesystem, is_local, open_read

HTML_TYPES = ("text/html", "application/xhtml+xml", "")


@dataclass(frozen=True)
class Page:
    """One fetched page."""

    id: str  # file name and byte offset of its record
    url: str
    html: bytes  # decoded of transfer and content coding; empty when `problem` says why
    charset: str  # as the HTTP header declares it; empty when it does not
    problem: str = ""  # "http_status", "not_html", "too_large", "revisit"
    value: float = 0.0  # the measured value behind the problem


@dataclass(frozen=True)
class Broken:
    """A file that ends or goes bad before its end."""

    line: str


class Source:
    """A binary stream for FastWARC: its first bytes can be looked at, and what a remote store may raise becomes one line."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.stream = stream
        self.path = path
        self.place = 0
        self.start = self.pending = self.fetch(4096)

    def read(self, size: int = -1) -> bytes:
        if self.pending:
            data, self.pending = (self.pending, b"") if size < 0 else (self.pending[:size], self.pending[size:])
        else:
            data = self.fetch(size)
        self.place += len(data)
        return data

    def fetch(self, size: int) -> bytes:
        try:
            return self.stream.read(size)
        except Exception as error:  # every store has errors of its own
            raise InputError(f"{self.path}: reading failed: {type(error).__name__}: {error}") from error

    def tell(self) -> int:
        return self.place


def read_pages(path: str, max_bytes: int = 8_000_000) -> Iterator[Page | Broken]:
    """The response and resource records of one WARC file, in order; last, where it is so, how it is broken.

    Raises InputError when the file is missing or is no WARC file.
    """
    name = Path(path).name
    with opened(path) as stream:
        source = Source(stream, path)
        refuse_other_formats(path, source.start)
        records, last = 0, 0
        try:
            for record in ArchiveIterator(source, parse_http=True):  # type: ignore[arg-type]
                last = max(last, record.stream_pos)
                expected = record.content_length
                body = record.reader.read()
                records += 1
                if len(body) < expected:
                    yield Broken(f"{path}: truncated in the record at byte {last}: {len(body):,} of {expected:,} bytes are there")
                    return
                if record.record_type in (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.revisit):
                    yield page_of(record, f"{name}:{record.stream_pos}:{records}", body, max_bytes)
        except OSError as error:
            if not records:
                raise InputError(f"{path}: not a WARC file ({error})") from error
            yield Broken(f"{path}: unreadable after {records} records, past byte {last}: {error}")
            return
        if not records:
            raise InputError(f"{path}: not a WARC file (no record in it)")
        if not ends_whole(stream, source.start, last):
            yield Broken(f"{path}: truncated after {records} records, past byte {last}")


def has_pages(path: str) -> bool:
    """Whether a file holds at least one page; raises InputError when it is missing or is no WARC file."""
    return any(isinstance(one, Page) and not one.problem for one in read_pages(path))


def opened(path: str) -> Any:
    """The file as a stream; what a remote store raises becomes one line."""
    if is_local(path):
        if not Path(path).is_file():
            raise InputError(f"{path}: {'a folder' if Path(path).is_dir() else 'no such file'}; a WARC file is needed")
        return open_read(path)
    store, inside = filesystem(path)
    try:
        return store.open(inside, "rb")
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: cannot be opened: {type(error).__name__}: {error}") from error


def refuse_other_formats(path: str, start: bytes) -> None:
    """Names the mistake where the first bytes show one."""
    if not start:
        raise InputError(f"{path}: an empty file; a WARC file is needed")
    text = start
    if start[:2] == b"\x1f\x8b":
        try:
            text = zlib.decompressobj(wbits=31).decompress(start)
        except zlib.error as error:
            raise InputError(f"{path}: not a WARC file (damaged gzip data: {error})") from error
    if text.startswith(b"filedesc:"):
        raise InputError(f"{path}: an ARC file; only WARC is read (warcio recompress turns ARC into WARC)")


def ends_whole(stream: IO[bytes], start: bytes, last: int) -> bool:
    """Whether nothing but whole gzip members lies behind the last record that was read; plain files are whole."""
    if start[:2] != b"\x1f\x8b":
        return True
    try:
        stream.seek(last)
        # Where one gzip member holds several records their place is not known, and the file is gone through from its beginning.
        stream.seek(last if stream.read(2) == b"\x1f\x8b" else 0)
    except (OSError, ValueError):  # a stream that cannot go back
        return True
    member, pending = zlib.decompressobj(wbits=31), b""
    while True:
        pending = pending or stream.read(1 << 16)
        if not pending:
            return member.eof
        if member.eof:
            if pending.strip(b"\x00") == b"":
                return True
            member = zlib.decompressobj(wbits=31)
        try:
            member.decompress(pending)
        except zlib.error:
            return False
        pending = member.unused_data


def page_of(record: Any, name: str, body: bytes, max_bytes: int) -> Page:
    """The page of a record, or a page whose `problem` says why it has no HTML."""
    url = (record.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
    headers = record.http_headers
    if record.record_type == WarcRecordType.revisit:
        return Page(name, url, b"", "", "revisit")
    status = headers.status_code if headers is not None else None
    if status is not None and not 200 <= status < 300:
        return Page(name, url, b"", "", "http_status", float(status))
    kind = (record.http_content_type if record.is_http else record.headers.get("Content-Type")) or ""
    html = undone(body, headers, max_bytes) if headers is not None else body
    if len(html) > max_bytes:
        return Page(name, url, b"", "", "too_large", float(len(html)))
    if kind.partition(";")[0].strip().lower() not in HTML_TYPES or (not kind and not looks_like_html(html)):
        return Page(name, url, b"", "", "not_html", float(len(html)))
    return Page(name, url, html, (record.http_charset or "") if record.is_http else "")


def looks_like_html(body: bytes) -> bool:
    start = body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<") and any(mark in start for mark in (b"<html", b"<!doctype html", b"<body", b"<head", b"<p", b"<div"))


def undone(body: bytes, headers: Any, max_bytes: int) -> bytes:
    """The body without chunked transfer coding and without content coding; as it is where it is not really coded so."""
    lower = {name.lower(): value.lower() for name, value in headers}
    if "chunked" in lower.get("transfer-encoding", ""):
        body = dechunked(body)
    for coding in reversed([one.strip() for one in lower.get("content-encoding", "").split(",") if one.strip()]):
        body = decompressed(body, coding, max_bytes)
    return body


def dechunked(body: bytes) -> bytes:
    """RFC 9112, section 7.1; crawlers often store the body already joined, so a body that is not chunked is returned as it is."""
    parts: list[bytes] = []
    place = 0
    while True:
        line_end = body.find(b"\r\n", place, place + 64)
        try:
            size = int(body[place:line_end].partition(b";")[0].strip(), 16) if line_end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0:
            return b"".join([*parts, body[place:]]) if parts else body
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        place = line_end + 2 + size + 2


def decompressed(body: bytes, coding: str, max_bytes: int) -> bytes:
    """gzip, deflate or brotli undone, one byte more than `max_bytes` at most, so that a bomb stays small."""
    try:
        if coding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(body, max_bytes + 1)
        if coding == "deflate":
            try:
                return zlib.decompressobj().decompress(body, max_bytes + 1)
            except zlib.error:
                return zlib.decompressobj(wbits=-15).decompress(body, max_bytes + 1)
        if coding == "br":
            import brotli

            return brotli.decompress(body)[: max_bytes + 1]
    except (zlib.error, ImportError, ValueError):
        return body
    except Exception as error:  # brotli has an error class of its own
        if type(error).__module__.startswith("brotli") or type(error).__name__ == "error":
            return body
        raise
    return body


def decoded(html: bytes, charset: str = "") -> str:
    """The page as text: byte-order mark, then the HTTP header's charset, then the page's own declaration, then detection."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if html.startswith(mark):
            return html[len(mark) :].decode(name, errors="replace")
    for name in (charset.strip("\"' "), detect_encoding(html, from_html_meta=True) or "utf-8", "utf-8"):
        try:
            if name:
                return bytes_to_str(html, name)
        except (LookupError, ValueError):  # a charset that nobody knows
            continue
    return html.decode("utf-8", errors="replace")
