"""A stored HTTP response, or a bare body, to a page."""

import re

from data_pipeline.web.reading.bodies import looks_like_html, undone
from data_pipeline.web.reading.metadata import metadata_of
from data_pipeline.web.reading.records import Page

HTML_TYPES = ("text/html", "application/xhtml+xml", "")
STATUS = re.compile(rb"HTTP/[\d.]+[ \t]+(\d{3})")
END = re.compile(rb"\r?\n\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
MAX_HEAD = 1 << 18


def http_page(name: str, url: str, kind: str, block: bytes, length: int, max_bytes: int, fetched: str, snapshot: str) -> Page:
    """The page of a block of `length` bytes, of which `block` is the beginning; a page whose `problem` says why it has no HTML."""
    from data_pipeline.web.reading.warc import header_dict

    headers: dict[str, str] = {}
    body = block
    spoken = STATUS.match(block)
    if spoken:
        end = END.search(block, 0, MAX_HEAD)
        if end is None and len(block) >= MAX_HEAD:
            return Page(name, url, b"", "", "bad_http", float(length), fetched=fetched)
        head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
        headers = header_dict(head.decode("latin-1").splitlines()[1:])
        kind = headers.get("content-type", "")
        status = int(spoken[1])
        if not 200 <= status < 300:
            return Page(name, url, b"", "", "http_status", float(status), fetched=fetched)
    elif kind.startswith("application/http"):
        kind = ""
    media = kind.partition(";")[0].strip().lower()
    cut = length > len(block)
    if media not in HTML_TYPES:
        return Page(name, url, b"", "", "not_html", float(length), fetched=fetched)
    if cut:
        return Page(name, url, b"", "", "too_large", float(length), fetched=fetched)
    html = undone(body, headers, max_bytes) if headers else body
    if len(html) > max_bytes:
        return Page(name, url, b"", "", "too_large", float(len(html)), fetched=fetched)
    if not kind and not looks_like_html(html):
        return Page(name, url, b"", "", "not_html", float(len(html)), fetched=fetched)
    charset = CHARSET.search(kind)
    return Page(name, url, html, charset[1] if charset else "", fetched=fetched, metadata=metadata_of(headers, html, snapshot))
