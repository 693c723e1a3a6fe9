"""One door for every format: which one a file has is told by its first bytes."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from data_pipeline.errors import InputError
from data_pipeline.web.reading.arc import Arc, begins_arc
from data_pipeline.web.reading.bodies import looks_like_html
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.lines import read_lines
from data_pipeline.web.reading.metadata import metadata_of, snapshot_of
from data_pipeline.web.reading.parquet import read_parquet
from data_pipeline.web.reading.raw import CHUNK, Raw, opened
from data_pipeline.web.reading.records import Broken, Damaged, NotWebData, Page, Place
from data_pipeline.web.reading.warc import Warc, begins_warc
from data_pipeline.web.reading.window import GZIP, ZSTD, Window, start_of

FORMATS = "WARC, WET, ARC, HTML, Parquet or JSON lines, the text ones also as gzip or Zstandard"
NAMED_HTML = re.compile(r"\.x?html?(\.gz|\.zst)?$", re.IGNORECASE)
NAMED_WARC = re.compile(r"\.(warc|wet|arc)(\.gz|\.zst)?(\.\w+)?$", re.IGNORECASE)


def read_records(
    path: str, *, limits: ReadLimits | None = None, start: Place | None = None, name: str | None = None
) -> Iterator[Page | Broken]:
    """The pages of one file in order, and where it is broken.

    `start` is the `place` of something that an earlier reading yielded: exactly what came behind it is yielded again. `name` begins the ids
    (see `names_of`); without it the file's own name does. Raises NotWebData when the file is empty or of no known format, and InputError
    when it is missing or cannot be read from its store: that is never counted as damage.
    """
    limits, name = limits or ReadLimits(), name or PurePosixPath(path).name
    place = start or Place(snapshot=snapshot_of(path))
    with opened(path) as stream:
        raw = Raw(stream, path)
        beginning = raw.peek(4)
        if not beginning:
            raise NotWebData(f"{path}: an empty file; {FORMATS} is needed")
        if beginning == b"PAR1":
            if not raw.seekable:
                raise InputError(f"{path}: Parquet needs a store that can go back in a file; copy the file first")
            stream.seek(0)
            yield from read_parquet(stream, path, name, limits, place)
            return
        yield from read_window(raw, path, name, limits, place)


def read_window(raw: Raw, path: str, name: str, limits: ReadLimits, place: Place) -> Iterator[Page | Broken]:
    """The formats that are read through a window."""
    first = beginning_of(raw).removeprefix(b"\xef\xbb\xbf")
    bare = first.lstrip(b"\r\n\t ")
    archive = Arc if bare.startswith(b"filedesc:") or begins_arc(first) else Warc if begins_warc(first) else None
    if archive is None and not looks_like_page(path, bare) and not bare.startswith(b"{") and is_damaged_archive(raw, path):
        archive = Arc if ".arc" in path.lower() else Warc
    if archive is not None:
        begins = begins_arc if archive is Arc else begins_warc
        yield from archive(window_at(raw, limits, begins, place), path, name, limits, place).records()
    elif bare.startswith(b"{"):
        yield from read_lines(window_at(raw, limits, none_begins, place), path, name, limits, place)
    elif looks_like_page(path, bare):
        if not place.record:
            yield html_file(window_at(raw, limits, none_begins, place), path, name, limits, place)
    else:
        raise NotWebData(f"{path}: not a WARC file, and of no other known format; {FORMATS} is needed")


def none_begins(_: bytes) -> bool:
    return False


def window_at(raw: Raw, limits: ReadLimits, begins: Callable[[bytes], bool], place: Place) -> Window:
    """A window at the place from which reading goes on."""
    try:
        return Window(raw, limits, begins, place.offset, place.inside)
    except Damaged as error:
        raise InputError(f"{raw.path}: changed since it was read: {error}") from error


def beginning_of(raw: Raw) -> bytes:
    """The first unpacked bytes; nothing moves."""
    packed = raw.peek(CHUNK)
    if packed[:3] == GZIP:
        return start_of(packed, 2048)
    if packed[:4] != ZSTD:
        return packed[:2048]
    import pyarrow

    try:
        return pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read(2048)
    except OSError:
        return b""


def looks_like_page(path: str, start: bytes) -> bool:
    return looks_like_html(start) or (NAMED_HTML.search(path) is not None and start.startswith(b"<"))


def is_damaged_archive(raw: Raw, path: str) -> bool:
    """Whether a file that does not begin as an archive is one by its name and by a record somewhere in its first megabytes."""
    if not NAMED_WARC.search(path) or not raw.seekable:
        return False
    window = Window(raw, ReadLimits(), begins_arc if ".arc" in path.lower() else begins_warc)
    if window.coding == "gzip":
        found = window.search_member(1)
        raw.go(0)
        return found
    return (Arc if ".arc" in path.lower() else Warc).line.search(raw.peek(1 << 22)) is not None


def html_file(window: Window, path: str, name: str, limits: ReadLimits, place: Place) -> Page | Broken:
    """The one page of an HTML file."""
    behind = replace(place, record=1)
    try:
        html = window.take(limits.max_page_bytes + 1)
    except Damaged as error:
        return Broken(f"{path}: {error}", 1, replace(behind, broken=1))
    if window.truncated:
        return Broken(f"{path}: truncated", 1, replace(behind, broken=1))
    if len(html) > limits.max_page_bytes:
        return Page(f"{name}:0:1", "", b"", "", "too_large", float(len(html)), place=behind)
    return Page(f"{name}:0:1", "", html, "", metadata=metadata_of({}, html, place.snapshot), place=behind)


def names_of(paths: Sequence[str]) -> list[str]:
    """A short name for each path, no two the same: the file's own, with folders before it and a number behind it where that takes."""
    parts = [PurePosixPath(path.replace("\\", "/")).parts for path in paths]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(one[-length:]) for one, length in zip(parts, depth, strict=True)]
        counts = Counter(names)
        longer = [place for place, one in enumerate(names) if counts[one] > 1 and depth[place] < len(parts[place])]
        if not longer:
            break
        for place in longer:
            depth[place] += 1
    seen: Counter[str] = Counter()
    found: list[str] = []
    taken = set(names)
    for one in names:
        seen[one] += 1
        new = one
        while seen[one] > 1 and new in taken:
            new = f"{one}#{seen[one]}"
            seen[one] += new in taken
        taken.add(new)
        found.append(new)
    return found
