"""Small files on any fsspec store: read, write whole, create only where nothing is, list. Every call is patient.

`create` is the one primitive on which claims and commits rest. A local file is written beside its place and linked to it, so that it
appears whole and only once; object stores get a conditional request through fsspec's mode "xb" (S3 answers 412 where the name is taken).
"""

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.engine.patience import patiently
from data_pipeline.errors import InputError
from data_pipeline.storage import filesystem, is_local

FORMAT = 1
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL}


class Store:
    """The files under the folder or URL `url`; names are relative to it, `folder/file`."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/")
        self.local = is_local(self.url)
        self.files, base = filesystem(self.url)
        self.base = base.rstrip("/")
        if self.local:  # it is handed to workers, and a task may change the working folder
            self.url = self.base

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url,)

    def open_journal(self) -> None:
        """Marks the folder as a journal; an address that cannot be written, or holds another format, is one line."""
        import json

        mark = json.dumps({"format": FORMAT}).encode()
        try:
            if not self.create("journal.json", mark) and (found := self.read("journal.json")) != mark:
                raise InputError(f"{self.url}/journal.json: format {FORMAT} is needed, got {found[:80]!r}")
            if not self.local and not self._is_exclusive("journal.json", mark):
                raise InputError(f"{self.url}: a journal needs a store with conditional create, and this one writes over what is there")
        except InputError:
            raise
        except Exception as error:  # every store has errors of its own: no credentials, no such bucket, no network
            raise InputError(f"{self.url}: a journal cannot be written there: {type(error).__name__}: {error}") from error

    def _is_exclusive(self, name: str, content: bytes) -> bool:
        """Whether the store refuses to create what is there. Some that speak S3 take the condition and ignore it."""
        try:
            patiently(lambda: self._create_remote(name, content))
        except FileExistsError:
            return True
        return False

    def path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def read(self, name: str) -> bytes:
        """The file's bytes; FileNotFoundError where there is none."""
        if self.local:
            return patiently(lambda: Path(self.path(name)).read_bytes())
        return patiently(lambda: self.files.cat_file(self.path(name)))  # type: ignore[return-value]

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """The file whole, in place of what stood there. `durable` waits for a local disk."""
        if self.local:
            patiently(lambda: self._place(name, content, durable, os.replace))
        else:
            patiently(lambda: self.files.pipe_file(self.path(name), content))

    def create(self, name: str, content: bytes, durable: bool = False) -> bool:
        """The file whole, if nothing has its name; false where something has.

        A request whose answer was lost is asked again, and then finds its own file: equal content counts as won, so content that decides a
        race must differ between those who race.
        """
        try:
            if self.local:
                patiently(lambda: self._place(name, content, durable, link))
            else:
                patiently(lambda: self._create_remote(name, content))
        except FileExistsError:
            try:
                return self.read(name) == content
            except FileNotFoundError:  # removed in this moment, as a result that was taken back is
                return False
        return True

    def _place(self, name: str, content: bytes, durable: bool, put: Any) -> None:
        target = Path(self.path(name))
        temporary = target.with_name(f".{uuid.uuid4().hex}.part")
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            put(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _create_remote(self, name: str, content: bytes) -> None:
        with self.files.open(self.path(name), "xb") as stream:
            stream.write(content)  # type: ignore[arg-type]

    def names(self, folder: str) -> list[str]:
        """The names of the folder's files, sorted; none where there is no folder. What is being written is left out."""
        try:
            if self.local:
                found = patiently(lambda: os.listdir(self.path(folder)))
            else:
                found = [str(path).rsplit("/", 1)[-1] for path in patiently(lambda: self._list_remote(folder))]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name and not name.startswith("."))

    def _list_remote(self, folder: str) -> list[str]:
        self.files.invalidate_cache()  # a list from memory would hide what other machines did
        return self.files.ls(self.path(folder), detail=False)

    def remove(self, name: str) -> None:
        """The file is gone afterwards, whoever removed it."""
        with suppress(FileNotFoundError):
            if self.local:
                patiently(lambda: os.unlink(self.path(name)))
            else:
                patiently(lambda: self.files.rm_file(self.path(name)))


def link(temporary: Path, target: Path) -> None:
    """Gives a whole file its name, once; where the file system knows no links, an exclusive open decides and the content follows."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        content = temporary.read_bytes()
        with open(target, "xb") as stream:
            try:
                stream.write(content)
                stream.flush()
            except OSError:  # a part of a record would stand for ever
                target.unlink()
                raise
