"""The loop over the records of an archive, WARC or ARC: good ones in order, bad ones counted, and the way back into step behind them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.records import MAX_LINES, Bomb, Broken, Damaged, NotWebData, Page, Place
from data_pipeline.web.reading.window import Window

MAX_HEAD = 1 << 18  # bytes of the header lines of a record, or of HTTP
# An HTTP body within its coding may be a little longer than the page.
CODING_ROOM = 1 << 16
# How often a file is gone back in to search what a lying length would skip.
MAX_REWINDS = 100


@dataclass
class Head:
    """The header of a record: its kind, its length, and what makes a page of its block."""

    length: int
    page: Callable[[str, bytes, str, int], Page | None]  # (id, block, snapshot, length of the whole block)
    wanted: bool  # whether the block is looked at
    snapshot: str = ""  # what an information record says
    information: bool = False


class Wrong(Exception):
    """A record is not what it should be; the message says how."""


class Archive(ABC):
    """The records of one archive. `head` reads a record's header at the window's left edge and raises Wrong; `line` finds a beginning."""

    kind = "an archive"
    line: re.Pattern[bytes]  # group 1 is a record's beginning, at a line start
    first: re.Pattern[bytes]  # a record's beginning at the left edge

    def __init__(self, window: Window, path: str, name: str, limits: ReadLimits, start: Place) -> None:
        self.window, self.path, self.name, self.limits = window, path, name, limits
        self.record, self.broken, self.snapshot = start.record, start.broken, start.snapshot
        self.rewinds, self.done = start.rewinds, start.done
        self.over = False  # nothing more can be read

    @abstractmethod
    def head(self) -> Head: ...

    def place(self) -> Place:
        offset, inside = self.window.place()
        return Place(offset, inside, self.record, self.broken, self.snapshot, self.rewinds, self.done)

    def records(self) -> Iterator[Page | Broken]:
        window = self.window
        while not (self.done or self.over):
            try:
                if not self.advance():
                    break
            except Damaged as error:
                # Between two members, or within the one that was just begun.
                place = window.raw.offset if window.ended else window.member
                yield from self.broken_at(place, str(error), lambda place=place: window.search_member(place + 1))
                continue
            begin = window.place()
            try:
                page = self.one()
            except Wrong as error:
                yield from self.broken_at(begin[0], str(error), lambda begin=begin: self.search_from(*begin))
                continue
            except Damaged as error:
                yield from self.broken_at(begin[0], str(error), lambda: window.search_member(window.member + 1))
                continue
            if page is not None:
                yield page
        if window.truncated and not (self.done or self.over):
            yield from self.broken_at(window.raw.offset, "truncated: the last gzip member has no end", lambda: False)
        if self.broken > MAX_LINES and not self.done:
            more = self.broken - MAX_LINES
            self.done = True
            yield Broken(f"{self.path}: {more:,} more broken records", more, self.place())
        if not self.record and not self.broken:
            raise NotWebData(f"{self.path}: not {self.kind} file (no record in it)")

    def advance(self) -> bool:
        """Over the line ends behind a record and to the beginning of the next one; False at the end."""
        window = self.window
        while True:
            while window.left and window.data[window.at] in b"\r\n":
                window.at += 1
            if window.left:
                return True
            if not window.ended:
                window.more()
            elif window.coding != "gzip" or not window.open_member():
                return False

    def one(self) -> Page | None:
        """The record at the left edge; Wrong or Damaged where it is none."""
        window = self.window
        offset, _ = window.place()
        head = self.head()
        name = f"{self.name}:{offset}:{self.record + 1}"
        if head.length > self.limits.max_record_bytes:
            page = head.page(name, b"", self.snapshot, head.length)
            self.search_on()
            return self.counted(page)
        room = self.limits.max_page_bytes + CODING_ROOM + MAX_HEAD
        try:
            block = window.take(min(head.length, room if head.wanted or head.information else 0))
            there = len(block) + window.skip(head.length - len(block))
            self.check_end(head.length, there, offset)
        except Bomb:
            page = head.page(name, b"", self.snapshot, window.produced)
            window.search_member(window.member + 1)
            return self.counted(page)
        if head.information:
            self.snapshot = information_snapshot(block) or self.snapshot
        return self.counted(head.page(name, block, self.snapshot, head.length) if head.wanted else None)

    def counted(self, page: Page | None) -> Page | None:
        self.record += 1
        if page is None:
            return None
        return Page(**{**page.__dict__, "place": self.place()})

    def check_end(self, length: int, there: int, offset: int) -> None:
        """Wrong where the block is short, or neither the end nor another record is behind it; moves over the line ends."""
        window = self.window
        if there < length:
            if window.ended and not (window.coding == "gzip" and window.raw.peek(1)):
                raise Wrong(f"truncated: {there:,} of {length:,} bytes are there")
            raise Wrong(f"its length says {length:,} bytes and {there:,} are there")
        line_ends = 0
        while True:
            # A member's end is the record's end: the next one is not looked at, since it may be damaged.
            if not window.left and not window.ended:
                window.more()
            if not window.left:
                return
            if window.data[window.at] not in b"\r\n":
                break
            window.at += 1
            line_ends += 1
        if line_ends >= len(b"\r\n\r\n"):  # as the standard has it; whatever comes next is judged by itself
            return
        if window.left < 300 and not window.ended:
            while window.left < 300 and window.more():
                pass
        if not self.first.match(window.data, window.at):
            raise Wrong(f"its length of {length:,} bytes does not end where the record does")

    def search_from(self, offset: int, inside: int) -> bool:
        """Into step again behind a place: goes back there, so that what a lying length skipped is found, and searches a beginning."""
        window = self.window
        if self.rewinds < MAX_REWINDS and window.raw.seekable:
            self.rewinds += 1
            window.reset(offset, inside)
            if window.ended and window.coding == "gzip":
                window.open_member()  # the bad record's own
        return self.search_on()

    def search_on(self) -> bool:
        """Into step again behind the left edge."""
        window = self.window
        try:
            window.fill(1)
            window.at += min(1, window.left)
            return window.search(self.line)
        except Damaged:
            return window.search_member(window.member + 1)

    def broken_at(self, offset: int, what: str, resume: Callable[[], bool]) -> Iterator[Broken]:
        """Counts a broken record, finds the next beginning, and then tells, so that the place told is behind both."""
        self.broken += 1
        found = resume()
        if what.startswith("truncated") and found:
            what = "a record that is cut or whose length lies; " + what.removeprefix("truncated: ")
        if not found:
            self.over = True
            self.done = self.broken <= MAX_LINES
        if self.broken <= MAX_LINES:
            behind = "" if found else "; nothing behind it can be read"
            line = f"{self.path}: {what} (byte {offset:,}, behind {self.record:,} records){behind}"
            yield Broken(line, 1, self.place())


def information_snapshot(block: bytes) -> str:
    """isPartOf of an information record."""
    found = re.search(rb"^isPartOf:[ \t]*([^\r\n]+)", block[:MAX_HEAD], re.IGNORECASE | re.MULTILINE)
    return found[1].decode("utf-8", errors="replace").strip()[:300] if found else ""
