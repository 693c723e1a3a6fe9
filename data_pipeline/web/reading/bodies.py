"""What an HTTP body holds: transfer and content coding undone within a limit, and the page as text."""

import zlib
from typing import Any

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

MAX_CODINGS = 4  # one on another; more is no page


def looks_like_html(body: bytes) -> bool:
    start = body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<") and any(mark in start for mark in (b"<html", b"<!doctype html", b"<body", b"<head", b"<p", b"<div"))


def undone(body: bytes, headers: dict[str, str], max_bytes: int) -> bytes:
    """The body without chunked transfer coding and without content coding; as it is where it is not really coded so."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunked(body)
    codings = [one.strip() for one in headers.get("content-encoding", "").lower().split(",") if one.strip()]
    for coding in reversed(codings[-MAX_CODINGS:]):
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
            return unbrotlied(body, max_bytes + 1)
    except (zlib.error, ImportError, ValueError):
        return body
    except Exception as error:  # brotli has an error class of its own
        if type(error).__module__.startswith("brotli") or type(error).__name__ == "error":
            return body
        raise
    return body


def unbrotlied(body: bytes, size: int) -> bytes:
    """The first `size` bytes at least of what brotli data unpacks to, and not much more."""
    import brotli

    unit: Any = brotli.Decompressor()
    parts = [unit.process(body, output_buffer_limit=1 << 16)]
    found = len(parts[0])
    while found < size and not unit.is_finished() and (part := unit.process(b"", output_buffer_limit=1 << 16)):
        parts.append(part)
        found += len(part)
    if found < size and not unit.is_finished():
        raise ValueError("the data is cut")
    return b"".join(parts)[:size]


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
