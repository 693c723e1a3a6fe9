"""JSON lines: a page per line."""

import json
from collections.abc import Iterator

from data_pipeline.web.reading.fields import page_of_fields
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.records import MAX_LINES, Broken, Damaged, Page, Place
from data_pipeline.web.reading.window import Window

# JSON may write six bytes for one of text, and a line has more fields than one.
ROOM = 8


def read_lines(window: Window, path: str, name: str, limits: ReadLimits, start: Place) -> Iterator[Page | Broken]:
    """The pages of the lines; a bad line is counted. Damaged gzip or Zstandard data ends the file."""
    record, broken, done = start.record, start.broken, start.done

    def place() -> Place:
        return Place(*window.place(), record, broken, start.snapshot, done=done)

    over = False
    while not (done or over):
        what, offset, page = "", window.place()[0], None
        try:
            line = next_line(window, min(limits.max_record_bytes, limits.max_page_bytes * ROOM))
            if line is None:
                break
            if isinstance(line, bytes) and not line.strip():
                continue
            record += 1
            page = page_of_line(line, f"{name}:{offset}:{record}", limits, start.snapshot)
        except ValueError as error:
            what = f"line {record:,}: {error}"
        except Damaged as error:
            what, over = f"{error}", True
        if page is not None:
            yield Page(**{**page.__dict__, "place": place()})
            continue
        broken += 1
        if broken <= MAX_LINES:
            done = over
            yield Broken(f"{path}: {what} (byte {offset:,})", 1, place())
    if window.truncated and not (done or over):
        broken += 1
        if broken <= MAX_LINES:
            done = True
            yield Broken(f"{path}: truncated behind {record:,} lines", 1, place())
    if broken > MAX_LINES and not done:
        done = True
        yield Broken(f"{path}: {broken - MAX_LINES:,} more broken lines", broken - MAX_LINES, place())


def next_line(window: Window, limit: int) -> bytes | int | None:
    """The next line; its size where it is longer than `limit` (it is not kept); None at the end."""
    looked = 0
    while (end := window.data.find(b"\n", window.at + looked)) < 0:
        looked = window.left
        if looked > limit:
            before = looked
            window.at = len(window.data)
            while (end := window.data.find(b"\n", window.at)) < 0:
                before += window.left
                window.at = len(window.data)
                if not window.fill(1):
                    return before
            before += end - window.at
            window.at = end + 1
            return before
        if window.fill(looked + 1) == looked:
            return window.take(looked) if looked else None
    line = bytes(window.data[window.at : end])
    window.at = end + 1
    return line


def page_of_line(line: bytes | int, name: str, limits: ReadLimits, snapshot: str) -> Page:
    """The page of a line; ValueError says what is wrong with it."""
    if isinstance(line, int):
        return Page(name, "", b"", "", "too_large", float(line))
    try:
        row = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({str(error)[:100]})") from error
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return page_of_fields(row, name, limits.max_page_bytes, snapshot)
