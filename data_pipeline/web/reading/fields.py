"""A row with named fields, of a Parquet file or a JSON line, to a page."""

from collections.abc import Mapping
from typing import Any

from data_pipeline.web.reading.metadata import metadata_of
from data_pipeline.web.reading.records import Page

TEXT, HTML = ("text",), ("html", "content", "raw_content")
DATES = ("fetched", "date", "timestamp", "warc_date")
KNOWN = {"robots": ("robots",), "licence": ("licence", "license"), "language": ("language", "lang"), "snapshot": ("snapshot", "dump")}
NAMES = {"url", "charset", *TEXT, *HTML, *DATES, *(name for names in KNOWN.values() for name in names)}


def page_of_fields(row: Mapping[str, Any], name: str, max_bytes: int, snapshot: str) -> Page:
    """The page of a row; ValueError where it has neither text nor HTML. Fields of other names are left out."""
    field = next((one for one in (*TEXT, *HTML) if isinstance(row.get(one), str | bytes)), None)
    if field is None:
        raise ValueError(f"no text under {', '.join(map(repr, (*TEXT, *HTML)))}")
    value = row[field]
    data = value if isinstance(value, bytes) else value.encode("utf-8", errors="replace")
    url, fetched = clean(row.get("url")), clean(first(row, DATES))
    if len(data) > max_bytes:
        return Page(name, url, b"", "", "too_large", float(len(data)), fetched=fetched)
    told = {key: text for key, names in KNOWN.items() if (text := clean(first(row, names))[:300])}
    if field in HTML:
        known = metadata_of({}, data, snapshot) | told
        charset = clean(row.get("charset")) if isinstance(value, bytes) else "utf-8"
        return Page(name, url, data, charset, fetched=fetched, metadata=known)
    known = ({"snapshot": snapshot} if snapshot else {}) | told
    return Page(name, url, b"", "", text=data.decode("utf-8", errors="replace"), fetched=fetched, metadata=known)


def first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def clean(value: Any) -> str:
    """A value as text that UTF-8 can hold."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if value is None else str(value).encode("utf-8", errors="replace").decode()
