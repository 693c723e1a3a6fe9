"""The bytes of a file as records need them: unpacked member by member, bounded, with the place of each member, and found again after damage."""

import zlib
from typing import IO

from data_pipeline.errors import InputError

CHUNK = 1 << 18
GZIP = b"\x1f\x8b\x08"
# Below this a member may grow as it likes.
FREE_BYTES = 64_000_000


class Damage(Exception):
    """The bytes are not what they should be; the message says how."""


class Source:
    """The file, read in pieces; whatever a store raises is one line, and never taken for a damage of the file.

    Its first bytes can be looked at and read again, so that a stream that cannot go back is read too.
    """

    def __init__(self, stream: IO[bytes], path: str, looked_at: int = 4096) -> None:
        self.stream = stream
        self.path = path
        self.first = self.fetch(looked_at)
        self.pending: bytes | None = self.first  # of the first bytes, those that are still to be read; None once the stream has been

    def read(self, size: int = CHUNK) -> bytes:
        if self.pending is not None:
            found, self.pending = self.pending, None
            return found
        return self.fetch(size)

    def fetch(self, size: int) -> bytes:
        try:
            return self.stream.read(size)
        except Exception as error:  # every store has errors of its own
            raise InputError(f"{self.path}: reading failed: {type(error).__name__}: {error}") from error

    def seek(self, place: int) -> None:
        if self.pending is not None and place < len(self.first):
            self.pending = self.first[place:]
            return
        try:
            self.stream.seek(place)
        except Exception as error:
            raise InputError(f"{self.path}: reading failed: {type(error).__name__}: {error}") from error
        self.pending = None

    def goes_back(self) -> bool:
        """Whether earlier bytes can be read again."""
        try:
            self.stream.seek(self.stream.tell())
        except Exception:
            return False
        return True


class Records:
    """Unpacked bytes: `offset` is where the member (of a plain file: the record) began that is being read."""

    def __init__(self, source: Source, start: int = 0) -> None:
        self.source = source
        self.open_at(start)

    def open_at(self, place: int) -> None:
        raise NotImplementedError

    def fill(self) -> bool:
        """Adds bytes to the buffer; False at the end of the member or file."""
        raise NotImplementedError

    def next_record(self) -> bool:
        """Stands at the next record; False at the end of the file."""
        raise NotImplementedError

    def following(self) -> tuple[int, int]:
        """(offset, records to pass over there) of what comes behind the record that has been read."""
        raise NotImplementedError

    def find_again(self, marks: tuple[bytes, ...]) -> bool:
        """After a damage: stands at the next place where a record begins with one of `marks`; False where there is none."""
        raise NotImplementedError

    buffer: bytearray
    at: int  # how much of the buffer is consumed
    offset: int  # where in the file the record that is being read begins, or the gzip member in which it does
    reading = False  # whether a record has begun and its end is not reached: its bytes may go on in another gzip member

    def peek(self, size: int) -> bytes:
        while len(self.buffer) - self.at < size and self.fill():
            pass
        return bytes(self.buffer[self.at : self.at + size])

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end."""
        found = self.peek(size)
        self.at += len(found)
        self.drop_consumed()
        return found

    def line(self, limit: int) -> bytes:
        """Up to and including the next newline; a longer one than `limit` is a damage."""
        searched = self.at
        while True:
            end = self.buffer.find(b"\n", searched)
            if end >= 0:
                found = bytes(self.buffer[self.at : end + 1])
                self.at = end + 1
                return found
            if len(self.buffer) - self.at > limit:
                raise Damage(f"a header line of more than {limit:,} bytes")
            searched = len(self.buffer)
            if not self.fill():
                found = bytes(self.buffer[self.at :])
                self.at = len(self.buffer)
                return found

    def skip(self, size: int) -> int:
        """Passes over `size` bytes without keeping them; returns how many were there."""
        left = size
        while left:
            found = min(left, len(self.buffer) - self.at)
            self.at += found
            left -= found
            self.drop_consumed()
            if left and not self.fill():
                break
        return size - left

    def drop_consumed(self) -> None:
        if self.at > CHUNK:
            del self.buffer[: self.at]
            self.at = 0


class PlainRecords(Records):
    """A file that is not packed."""

    def open_at(self, place: int) -> None:
        self.source.seek(place)
        self.buffer, self.at = bytearray(), 0
        self.end = place  # of the buffer, in the file
        self.offset = place

    def fill(self) -> bool:
        data = self.source.read()
        self.buffer += data
        self.end += len(data)
        return bool(data)

    def tell(self) -> int:
        return self.end - (len(self.buffer) - self.at)

    def next_record(self) -> bool:
        pass_blank_lines(self)
        self.offset = self.tell()
        return bool(self.peek(1))

    def following(self) -> tuple[int, int]:
        return self.tell(), 0

    def find_again(self, marks: tuple[bytes, ...]) -> bool:
        self.open_at(self.offset + 1)
        while True:
            places = [place for mark in marks if (place := self.buffer.find(b"\n" + mark, self.at)) >= 0]
            if places:
                self.at = min(places) + 1
                return True
            self.at = max(self.at, len(self.buffer) - max(map(len, marks)) - 1)
            self.drop_consumed()
            if not self.fill():
                return False


class GzipRecords(Records):
    """Gzip members, usually one for each record; `grown` guards against members that unpack to far more than they are."""

    def __init__(self, source: Source, start: int = 0, max_expansion: int = 500) -> None:
        self.max_expansion = max_expansion
        super().__init__(source, start)

    def open_at(self, place: int) -> None:
        self.source.seek(place)
        self.packed = b""
        self.end = place  # of `packed`, in the file
        self.buffer, self.at = bytearray(), 0
        self.offset = place
        self.reading = False
        self.unpacker: zlib._Decompress | None = None
        self.ended = 0  # records that have ended since `offset`
        self.member, self.grown = place, 0  # where the open member begins, and how much it has given

    def fetch(self) -> bool:
        data = self.source.read()
        self.packed += data
        self.end += len(data)
        return bool(data)

    def open_member(self) -> bool:
        """Begins the member at the front of `packed`; False at the end of the file. Zeros between members are padding."""
        while True:
            self.packed = self.packed.lstrip(b"\x00")
            if len(self.packed) >= 3:
                break
            if not self.fetch():
                if self.packed:
                    raise Damage(f"{len(self.packed)} bytes that begin no gzip member")
                return False
        self.member, self.grown = self.end - len(self.packed), 0
        if not self.reading:
            self.offset, self.ended = self.member, 0
        if not self.packed.startswith(GZIP):
            raise Damage("bytes that begin no gzip member")
        self.unpacker = zlib.decompressobj(wbits=31)
        return True

    def fill(self) -> bool:
        if self.unpacker is None and not (self.reading and self.open_member()):
            return False
        while self.unpacker is not None:
            if not self.packed and not self.fetch():
                self.unpacker = None
                raise Damage("truncated: the file ends inside a gzip member")
            try:
                data = self.unpacker.decompress(self.packed, CHUNK)
            except zlib.error as error:
                self.unpacker = None
                raise Damage(f"damaged gzip data ({error})") from error
            if self.unpacker.eof:
                self.packed = self.unpacker.unused_data
                self.unpacker = None
            else:
                self.packed = self.unpacker.unconsumed_tail
            self.grown += len(data)
            self.check_growth()
            self.buffer += data
            if data:
                return True
            if self.unpacker is None:  # an empty member
                return self.fill()
        return False

    def check_growth(self) -> None:
        taken = max(self.end - len(self.packed) - self.member, 1)
        if self.grown > FREE_BYTES and self.grown / taken > self.max_expansion:
            self.unpacker = None
            raise Damage(f"a gzip member that grows more than {self.max_expansion} times")

    def next_record(self) -> bool:
        self.reading = False
        pass_blank_lines(self)
        while not self.peek(1):
            if not self.open_member():
                return False
            pass_blank_lines(self)
        self.reading = True
        return True

    def following(self) -> tuple[int, int]:
        self.ended += 1
        if self.unpacker is None and not bytes(self.buffer[self.at :]).strip():
            return self.end - len(self.packed), 0
        return self.offset, self.ended

    def find_again(self, marks: tuple[bytes, ...]) -> bool:
        self.open_at(self.offset + 1)
        while True:
            place = self.packed.find(GZIP)
            if place < 0:
                self.packed = self.packed[-2:]
                if not self.fetch():
                    return False
                continue
            self.packed = self.packed[place:]
            while len(self.packed) < 4096 and self.fetch():
                pass
            if begins_record(self.packed, marks):
                return True
            self.packed = self.packed[1:]


def begins_record(packed: bytes, marks: tuple[bytes, ...]) -> bool:
    """Whether a gzip member stands here whose first bytes are those of a record."""
    try:
        start = zlib.decompressobj(wbits=31).decompress(packed[:4096], 256)
    except zlib.error:
        return False
    return start.lstrip(b"\r\n").startswith(marks)


def pass_blank_lines(records: Records) -> None:
    """Line ends between records."""
    while True:
        found = records.peek(2)
        if found[:1] not in (b"\r", b"\n"):
            return
        records.at += 1
