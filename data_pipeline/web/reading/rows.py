"""Parquet and JSON-lines files of texts or pages, a row at a time."""

import io
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.page import Broken, Page, Place

TEXTS = ("text", "content", "raw_content")  # the first that is there
PAGES = ("html", "raw_html")
NAMES = {"url": ("url", "uri", "link"), "fetched": ("fetched", "date", "crawl_date", "timestamp"), "snapshot": ("snapshot", "dump")}
BATCH = 256


def parquet_rows(stream: IO[bytes], path: str, name: str, limits: ReadLimits, start: Place | None) -> Iterator[Page | Broken]:
    """The rows of a Parquet file with a column of texts or of HTML."""
    try:
        table = pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: a damaged Parquet file ({error})") from error
    columns = chosen_columns(table.schema_arrow.names, path)
    place = start.next if start is not None else 0
    row = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row + rows <= place:
            row += rows
            continue
        try:
            for batch in table.iter_batches(batch_size=BATCH, row_groups=[group], columns=list(columns.values())):
                for values in batch.to_pylist():
                    if row >= place:
                        yield page_of(
                            {key: values[column] for key, column in columns.items()}, name, row, limits, Place(row, row + 1, row + 1)
                        )
                    row += 1
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the store, not the file
                raise InputError(f"{path}: reading failed: {error}") from error
            yield Broken(f"{path}: damaged in row group {group} ({str(error)[:80]}); its rows are lost", Place(row, row, row))
            row = sum(table.metadata.row_group(one).num_rows for one in range(group + 1))


def chosen_columns(names: list[str], path: str) -> dict[str, str]:
    """Which column is the text or the HTML, and which say more; without either an error."""
    found = {key: next(one for one in options if one in names) for key, options in NAMES.items() if set(options) & set(names)}
    for key, options in (("html", PAGES), ("text", TEXTS)):
        for option in options:
            if option in names:
                return found | {key: option}
    raise InputError(f"{path}: no column of texts or pages; one of {', '.join((*TEXTS, *PAGES))} is needed, got {', '.join(names)}")


def json_rows(stream: IO[bytes], path: str, name: str, limits: ReadLimits, start: Place | None) -> Iterator[Page | Broken]:
    """The objects of a JSON-lines file; a line that is none is a damage, and the others are read."""
    stream.seek(0)
    packed = stream.read(2) == b"\x1f\x8b"
    begin = start or Place()
    stream.seek(0 if packed else begin.next)
    lines = unpacked_lines(stream, limits) if packed else plain_lines(stream, limits)
    offset, number, broken = (0, 0, 0) if packed else (begin.next, begin.record, begin.broken)
    while True:
        try:
            line = next(lines, None)
        except zlib.error as error:
            yield Broken(f"{path}: damaged gzip data past line {number:,} ({error})", Place(offset, number, offset, 0, broken + 1))
            return
        if line is None:
            return
        where, offset, number = offset, offset + len(line), number + 1
        row = row_of(line, limits) if line.strip() else None
        if isinstance(row, str):
            broken += 1
        if packed and number <= begin.record:
            continue
        if isinstance(row, dict):
            yield page_of(row, name, where, limits, Place(where, number, offset, 0, broken))
        elif row is not None:
            yield Broken(f"{path}, line {number:,}: {row}", Place(where, number, offset, 0, broken))


def plain_lines(stream: IO[bytes], limits: ReadLimits) -> Iterator[bytes]:
    """Lines of at most a record's bytes; a longer one comes in pieces, of which none is JSON."""
    while line := stream.readline(limits.max_record_bytes):
        yield line


def unpacked_lines(stream: IO[bytes], limits: ReadLimits) -> Iterator[bytes]:
    """The same of a gzip file."""
    import gzip

    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield from plain_lines(io.BufferedReader(unpacked), limits)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile) as error:
        raise zlib.error(str(error)) from error


def row_of(line: bytes, limits: ReadLimits) -> dict[str, Any] | str:
    """The row of a line by the names that pages have, or why it is none."""
    if len(line) >= limits.max_record_bytes:
        return f"a line of more than {limits.max_record_bytes:,} bytes"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({str(error)[:60]})"
    if not isinstance(row, dict):
        return f"a JSON object is needed, got {type(row).__name__}"
    more = row.get("metadata")
    row = {**more, **row} if isinstance(more, dict) else row
    try:
        columns = chosen_columns(list(row), "")
    except InputError:
        return f"no text or html in it; it has {', '.join(list(row)[:8])}"
    return {key: row[column] for key, column in columns.items()}


def page_of(row: dict[str, Any], name: str, offset: int, limits: ReadLimits, place: Place) -> Page:
    """The page of a row."""
    body = row.get("html", row.get("text"))
    data = body if isinstance(body, bytes) else ("" if body is None else str(body)).encode("utf-8", "surrogatepass")
    said = {key: "" if row.get(key) is None else str(row[key]) for key in NAMES}
    about = {"snapshot": said["snapshot"]} if said["snapshot"] else {}
    bare = {"id": f"{name}:{offset}:{place.record}", "url": said["url"], "fetched": said["fetched"], "place": place, "metadata": about}
    if len(data) > limits.max_page_bytes:
        return Page(**bare, problem="too_large", value=float(len(data)))
    if "html" in row:
        return Page(**bare, html=data, charset="" if isinstance(body, bytes) else "utf-8")
    return Page(**bare, text=data.decode("utf-8", "replace"))
