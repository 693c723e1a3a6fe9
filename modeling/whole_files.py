"""Files and folders that appear whole or not at all, and their hashes. Folders are local; files may be fsspec URLs."""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from modeling.errors import ModelError


def is_local(path: str | Path) -> bool:
    """Whether the path is on this machine's file system."""
    scheme, mark, _ = str(path).partition("://")
    return not mark or scheme == "file" or "/" in scheme or len(scheme) < 2  # one letter is a Windows drive


def store_of(path: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path inside it. A local path is taken as it is: fsspec would see more in `a::b`."""
    if is_local(path):
        store = fsspec.filesystem("file")
        return store, store._strip_protocol(str(path))
    try:
        return fsspec.core.url_to_fs(str(path))
    except (ImportError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error


def make_folder(path: Path) -> None:
    """The local folder with those above it, unless it is there; a file that stands in its place or above it gives one line."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ModelError(f"{path}: a file stands there or above it; a folder is needed") from error


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes appear at `path` all at once, or not at all when the block raises."""
    if not is_local(path):
        store_of(path)
        with fsspec.open(str(path), "wb") as stream:
            yield stream  # type: ignore[misc]
        return
    target = Path(str(path).removeprefix("file://"))
    if target.is_dir():
        raise ModelError(f"{target}: a folder stands there; a file is to be written")
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A local folder that appears at `path` complete. What stood there is replaced; it stays when the block raises.

    It is written beside its place as `.NAME.XXXXXXXX.part`, and what it replaces is `.NAME.XXXXXXXX.old` for a moment.
    """
    target = folder_place(path)
    make_folder(target.parent)
    mend_folder(target)
    temporary, lock = open_part(target)
    try:
        yield temporary
        flush_folder(temporary)
        replace_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        unlock_folder(lock)


def folder_place(path: str | Path) -> Path:
    """Where a whole folder will stand, links followed; what cannot be replaced by another folder is refused before anything is written."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # a Path has made one stroke of the two
        raise ModelError(f"{path}: an address; a folder on this machine is needed")
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise ModelError(f"{path}: a file stands there; a folder is needed")
    if os.path.ismount(target):
        raise ModelError(f"{path}: a mount point, which no other folder can replace; give a folder inside it")
    if target.is_dir() and target.samefile("."):
        raise ModelError(f"{path}: the working folder itself, which would be replaced; give a name inside it, or run this elsewhere")
    return target


def mend_folder(target: Path) -> None:
    """Removes what killed writers of the folder left beside it, and puts back the folder that one of them had taken away."""
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.*")):
        found = re.fullmatch(r"\.[0-9a-f]{8}\.(part|old)", path.name.removeprefix(f".{target.name}"))
        if found is None or path.is_symlink() or not path.is_dir():
            continue
        lock = lock_folder(path)
        if lock is None:  # its writer lives, or nobody can tell
            continue
        try:
            if found[1] == "old" and not target.exists():
                os.replace(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def lock_folder(folder: Path, wait: bool = False) -> int | None:
    """A lock on the folder that ends with this process at the latest; None where another has it, or the file system knows no locks."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(lock)
        return None
    return lock


def unlock_folder(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def open_part(target: Path) -> tuple[Path, int | None]:
    """A new folder to write beside the target, with its lock."""
    while True:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        temporary.mkdir()
        lock = lock_folder(temporary, wait=True)
        if temporary.exists():  # else another writer took it for a dead one's before it was locked
            return temporary, lock
        unlock_folder(lock)


def replace_folder(new: Path, target: Path) -> None:
    """Puts the new folder in the target's place; the old one stands aside, locked, until that is done, and comes back where it fails."""
    if not target.exists():
        os.replace(new, target)
        return
    retired = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    lock = lock_folder(target)
    try:
        os.replace(target, retired)
        os.replace(new, target)
    except BaseException:
        if retired.exists() and not target.exists():
            os.replace(retired, target)
        raise
    finally:
        unlock_folder(lock)
    shutil.rmtree(retired, ignore_errors=True)  # what cannot be removed now is the next writer's to remove


def flush_folder(folder: Path) -> None:
    """Forces the folder's files to the disk, so that a power cut after the rename cannot leave them short."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """One JSON value, indented."""
    with whole_file(path) as stream:
        stream.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def open_read(path: str | Path) -> Iterator[IO[bytes]]:
    """The file's bytes as a stream."""
    store, inside = store_of(path)
    with store.open(inside, "rb") as stream:
        yield stream  # type: ignore[misc]


def read_json(path: str | Path) -> Any:
    """One JSON value; an error of one line where the file is missing or is no JSON."""
    try:
        with open_read(path) as stream:
            content = stream.read()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: a folder stands there; a JSON file is needed") from error
    except NotADirectoryError as error:
        raise ModelError(f"{path}: no such file; one of the folders that it names is a file") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # no JSON, no Unicode, a number of thousands of digits, thousands of brackets
        raise ModelError(f"{path}: not valid JSON ({error})") from error


def sha256_of(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with open_read(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def usual_mode(path: str | Path) -> Iterator[None]:
    """A file that the block writes gets the permissions of any other new file: safetensors' own are the owner's alone."""
    place = Path(path)
    place.touch()
    mode = stat.S_IMODE(place.stat().st_mode)
    yield
    place.chmod(mode)
