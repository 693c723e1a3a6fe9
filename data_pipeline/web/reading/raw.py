"""The bytes of a file in any store, with a place that is known; what a store raises is an error of reading, never damage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_pipeline.errors import InputError
from data_pipeline.storage import filesystem, is_local, open_read

CHUNK = 1 << 16


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """The file as a stream. Raises InputError where it is missing or the store fails."""
    if is_local(path):
        if not Path(path.removeprefix("file://")).is_file():
            raise InputError(f"{path}: {'a folder' if Path(path).is_dir() else 'no such file'}; a file of web data is needed")
        try:
            manager: Any = open_read(path)
            stream = manager.__enter__()
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {type(error).__name__}: {error}") from error
        try:
            yield stream
        finally:
            stream.close()
        return
    store, inside = filesystem(path)
    try:
        stream = store.open(inside, "rb")
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: cannot be opened: {type(error).__name__}: {error}") from error
    try:
        yield stream  # type: ignore[misc]
    finally:
        stream.close()


class Raw:
    """A stream with pushback and a known offset."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.stream, self.path = stream, path
        self.offset = 0  # of the next byte that `read` gives
        self.pending = b""
        self.seekable = False
        self.size: int | None = None
        try:
            self.seekable = stream.seekable()
            if self.seekable:
                self.size = stream.seek(0, 2)
                stream.seek(0)
        except Exception:  # a store without a size; its stream still gives bytes from the start
            self.seekable = False

    def read(self, size: int = CHUNK) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        if self.pending:
            data, self.pending = self.pending[:size], self.pending[size:]
        else:
            try:
                data = self.stream.read(size)
            except Exception as error:  # every store has errors of its own
                raise InputError(f"{self.path}: reading failed: {type(error).__name__}: {error}") from error
        self.offset += len(data)
        return data

    def unread(self, data: bytes) -> None:
        if data:
            self.pending = data + self.pending
            self.offset -= len(data)

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay; fewer at the end."""
        parts: list[bytes] = []
        found = 0
        while found < size and (data := self.read(max(size - found, CHUNK))):
            parts.append(data)
            found += len(data)
        data = b"".join(parts)
        self.unread(data)
        return data[:size]

    def go(self, offset: int) -> bool:
        """Moves to a byte of the file; False where the stream cannot go back."""
        if 0 <= offset - self.offset <= len(self.pending):
            self.pending = self.pending[offset - self.offset :]
            self.offset = offset
            return True
        if self.seekable:
            try:
                self.stream.seek(offset)
            except Exception as error:
                raise InputError(f"{self.path}: reading failed: {type(error).__name__}: {error}") from error
            self.pending, self.offset = b"", offset
            return True
        while self.offset < offset and self.read(min(CHUNK, offset - self.offset)):
            pass
        return self.offset == offset
