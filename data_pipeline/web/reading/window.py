"""The unpacked bytes of a file seen through a window that moves over them: plain, gzip (any number of members) or Zstandard."""

import re
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.raw import CHUNK, Raw
from data_pipeline.web.reading.records import Bomb, Damaged

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
PIECE = 1 << 20  # unpacked bytes at a time
LOOK = 256  # unpacked bytes by which a record's beginning is recognized


class Window:
    """Holds a few megabytes at most. `begins` says whether bytes begin a record: a gzip member that does is never read into another's."""

    def __init__(self, raw: Raw, limits: ReadLimits, begins: Callable[[bytes], bool], offset: int = 0, inside: int = 0) -> None:
        self.raw, self.limits, self.begins = raw, limits, begins
        start = raw.peek(4)
        self.coding = "gzip" if start[:3] == GZIP else "zstd" if start == ZSTD else "plain"
        if not self.reset(offset, inside):
            raise InputError(f"{raw.path}: its store cannot go to byte {offset}; copy the file first")

    def reset(self, offset: int, inside: int) -> bool:
        """Begins anew at a place that `place` gave; False where the stream cannot go there."""
        if not self.raw.go(offset):
            return False
        self.data, self.at = bytearray(), 0
        self.base = 0  # unpacked bytes before data[0], from where reading began (plain: from the file's beginning)
        self.member = offset
        # Where members begin, of those that the window touches: in unpacked bytes as `base` counts, and in the file.
        self.marks: deque[tuple[int, int]] = deque([(0, offset)])
        self.ended = self.truncated = False
        self.unit: Any = None
        self.produced = 0
        self.damage = ""  # of the member, behind what is in the window
        if self.coding == "plain":
            self.base = offset
        elif self.coding == "gzip":
            self.ended = True
            if inside:
                self.open_member()
        else:
            self.unit = self.unpacked_zstd()
        self.skip(inside)
        return True

    def unpacked_zstd(self) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(Whole(self.raw), mode="r"), "zstd")

    def place(self) -> tuple[int, int]:
        """(offset, inside) of the window's left edge."""
        if self.coding == "plain":
            return self.base + self.at, 0
        if self.ended and self.at == len(self.data) and self.coding == "gzip":
            return self.raw.offset, 0
        here = self.base + self.at
        while len(self.marks) > 1 and self.marks[1][0] <= here:
            self.marks.popleft()
        return self.marks[0][1], here - self.marks[0][0]

    @property
    def left(self) -> int:
        """Bytes in the window."""
        return len(self.data) - self.at

    def fill(self, size: int) -> int:
        """Makes the window hold `size` bytes where the file, or the gzip member of the record, has them; returns how many it holds."""
        while self.left < size:
            if self.ended:
                if self.coding != "gzip" or self.begins(self.next_start()) or not self.open_member():
                    break
            elif not self.more():
                break
        return self.left

    def more(self) -> bool:
        """The next piece of the member; False at its end, or at the file's."""
        if self.at > PIECE:
            del self.data[: self.at]
            self.base += self.at
            self.at = 0
        if self.coding == "gzip":
            return self.more_of_member()
        try:
            piece = self.raw.read(CHUNK) if self.coding == "plain" else self.unit.read(PIECE)
        except InputError:
            raise
        except Exception as error:  # pyarrow says of bad data what it says of everything
            if self.coding == "plain" or isinstance(error.__cause__, InputError):
                raise
            raise Damaged(f"bad Zstandard data ({error})") from error
        self.ended = not piece
        self.data += piece
        return bool(piece)

    def more_of_member(self) -> bool:
        if self.damage:
            raise Damaged(self.damage)
        # Told when more is wanted, so that the record's header is seen before.
        if self.produced > self.limits.max_page_bytes and not self.ended:
            self.check_expansion()
        while not self.ended:
            packed = self.raw.read(CHUNK)
            if not packed:
                self.truncated = self.ended = True
                return False
            before = self.unit.copy()
            try:
                piece = self.unit.decompress(packed, PIECE)
            except zlib.error as error:
                self.damage = f"bad gzip data ({error})"
                piece = whole_part(before, packed)
                self.data += piece
                self.produced += len(piece)
                if piece:
                    return True
                raise Damaged(self.damage) from error
            self.raw.unread(self.unit.unused_data if self.unit.eof else self.unit.unconsumed_tail)
            self.produced += len(piece)
            self.ended = self.unit.eof
            if piece:
                self.data += piece
                return True
        return False

    def check_expansion(self) -> None:
        if self.produced > self.limits.max_expansion * (self.raw.offset - self.member):
            raise Bomb(f"a gzip member unpacks to more than {self.limits.max_expansion} times its size")

    def next_start(self) -> bytes:
        """The first unpacked bytes of the next member, b"" where there is none or it is damaged. Nothing moves."""
        packed = self.raw.peek(1 << 10).lstrip(b"\x00")
        return start_of(packed) if packed[:3] == GZIP else b""

    def open_member(self) -> bool:
        """Begins the next gzip member; what is left in the window stays. False at the file's end; zeros between members are padding."""
        while True:
            packed = self.raw.read(CHUNK)
            rest = packed.lstrip(b"\x00") if packed[:1] == b"\x00" else packed
            if rest or not packed:
                break
        self.raw.unread(rest)
        if not packed:
            return False
        if self.raw.peek(3)[:2] != GZIP[:2]:
            raise Damaged("no gzip data where a member should begin")
        self.marks.append((self.base + len(self.data), self.raw.offset))
        self.member, self.unit, self.produced, self.ended = self.raw.offset, zlib.decompressobj(wbits=31), 0, False
        self.damage = ""
        return True

    def take(self, size: int) -> bytes:
        """Up to `size` bytes, and moves behind them."""
        self.fill(size)
        data = bytes(self.data[self.at : self.at + size])
        self.at += len(data)
        return data

    def skip(self, size: int) -> int:
        """Moves over `size` bytes without keeping them; returns how many there were."""
        done = 0
        while done < size:
            if not self.left and self.coding == "plain" and self.raw.seekable and self.raw.size is not None:
                step = min(size - done, self.raw.size - self.raw.offset)
                if step > CHUNK:
                    self.data, self.at, self.base = bytearray(), 0, self.raw.offset + step
                    self.raw.go(self.base)
                    done += step
                    continue
            step = min(size - done, self.left or self.fill(1))
            if not step:
                break
            self.at += step
            done += step
        return done

    def search(self, pattern: re.Pattern[bytes], keep: int = LOOK) -> bool:
        """Moves to the next match of group 1, or to the next member that begins a record; False at the end. Raises Damaged."""
        while True:
            found = pattern.search(self.data, self.at)
            if found:
                self.at = found.start(1)
                return True
            self.at = max(self.at, len(self.data) - keep)
            if self.ended:
                if self.coding == "gzip" and self.begins(self.next_start()):
                    self.at = len(self.data)
                    return True
                if self.coding != "gzip" or not self.open_member():
                    self.at = len(self.data)
                    return False
            else:
                self.more()

    def search_member(self, offset: int) -> bool:
        """Moves to the first gzip member from the byte `offset` on that begins a record; False where there is none."""
        if self.coding != "gzip":
            return False
        self.raw.go(offset)
        tail = b""
        while packed := self.raw.read(CHUNK):
            data = tail + packed
            place = data.find(GZIP)
            while place >= 0:
                # A member near the end of the piece is looked at with what follows.
                after = data[place:] if len(data) - place >= 1024 else data[place:] + self.raw.peek(1024)
                if self.begins(start_of(after[:1024])):
                    self.raw.unread(packed[max(0, place - len(tail)) :])
                    if place < len(tail):
                        self.raw.unread(tail[place:])
                    self.data, self.at, self.base, self.member = bytearray(), 0, 0, self.raw.offset
                    self.marks = deque([(0, self.raw.offset)])
                    self.unit, self.ended, self.truncated, self.damage = None, True, False, ""
                    return True
                place = data.find(GZIP, place + 1)
            tail = data[-2:]
        self.data, self.at, self.ended = bytearray(), 0, True
        return False


class Whole:
    """A Raw as pyarrow wants its files."""

    closed = False

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    def read(self, size: int = -1) -> bytes:
        return self.raw.read(size if size >= 0 else CHUNK)

    def close(self) -> None:
        pass


def whole_part(unit: Any, packed: bytes) -> bytes:
    """What damaged data unpacks to before the damage, byte by byte, so that it does not depend on where the pieces were cut."""
    parts: list[bytes] = []
    try:
        for place in range(len(packed)):
            parts.append(unit.decompress(packed[place : place + 1]))
    except zlib.error:
        pass
    return b"".join(parts)


def start_of(packed: bytes, size: int = LOOK) -> bytes:
    """The first `size` bytes that gzip data unpacks to; b"" where it is none."""
    try:
        return zlib.decompressobj(wbits=31).decompress(packed, size)
    except zlib.error:
        return b""
