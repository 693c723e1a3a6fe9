"""Bytes on any store: fsspec paths, atomic writes, hashes, JSON and JSON lines.

A path is a local path or an fsspec URL (`s3://...`, `https://...`, `memory://...`). A local file appears under its name only when it is
complete: it is written beside it under a temporary name, flushed to disk and renamed. Object stores already behave so.
"""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec

from data_pipeline.errors import InputError, missing_extra

HASH_CHUNK = 2**22  # bytes between two words of progress
# Packages that fsspec wants for a protocol and that are extras here.
EXTRAS = {"s3": "s3", "s3a": "s3"}


def is_local(path: str | Path) -> bool:
    """Whether the path is on this machine's file system."""
    scheme, mark, _ = str(path).partition("://")
    return not mark or scheme == "file" or "/" in scheme or len(scheme) < 2  # one letter is a Windows drive


def filesystem(path: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL and the path inside it; a protocol whose package is missing names its install line.

    A local path is taken as it is: fsspec would see more in `a::b`.
    """
    if is_local(path):
        store = fsspec.filesystem("file")
        return store, store._strip_protocol(str(path))
    try:
        return fsspec.core.url_to_fs(str(path))
    except ImportError as error:
        scheme = urlsplit(str(path)).scheme
        extra = EXTRAS.get(scheme)
        line = f"pip install 'phial[{extra}]'" if extra else f"pip install fsspec[{scheme}]"
        raise missing_extra(f"fsspec's {scheme} file system", line, f"reading {path}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:  # stores that connect at once, ftp and sftp say
        raise InputError(f"{path}: cannot be looked up: {type(error).__name__}: {error}") from error


def expand(pattern: str) -> list[str]:
    """Every path that a path, URL or glob names, sorted; an error where there is none.

    http(s) addresses cannot be globbed (their query marks are not wildcards) and are taken as they are.
    """
    if pattern.startswith(("http://", "https://")):
        return [pattern]
    store, inside = filesystem(pattern)
    try:
        found = sorted(store.glob(inside)) if any(mark in inside for mark in "*?[") else [inside] if store.exists(inside) else []
        files = [str(name) for name in found if not store.isdir(name)]
    except Exception as error:  # every store has errors of its own: no credentials, no such bucket, no network
        if is_local(pattern):
            raise
        raise InputError(f"{pattern}: cannot be looked up: {type(error).__name__}: {error}") from error
    if found and not files:
        raise InputError(f"{pattern}: a folder; files are needed, for example {pattern.rstrip('/')}/*")
    if not files:
        raise InputError(f"{pattern}: no such file; a path, a URL or a glob that matches at least one file is needed")
    return files if is_local(pattern) else [store.unstrip_protocol(name) for name in files]


@contextmanager
def open_read(path: str | Path) -> Iterator[IO[bytes]]:
    """The file's bytes as a stream."""
    store, inside = filesystem(path)
    with store.open(inside, "rb") as stream:
        yield stream  # type: ignore[misc]


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A stream whose bytes appear at `path` all at once, or not at all when the block raises."""
    text: dict[str, Any] = {"encoding": "utf-8", "newline": "\n"} if "b" not in mode else {}
    if not is_local(path):
        with fsspec.open(str(path), mode, **text) as stream:
            yield stream  # type: ignore[misc]
        return
    target = Path(str(path).removeprefix("file://"))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, mode, **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A local folder that appears at `path` complete, replacing what stood there, or not at all when the block raises.

    It is written beside its place as `.NAME.XXXXXXXX.part`, and what it replaces is `.NAME.XXXXXXXX.old` for a moment.
    """
    target = folder_place(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    mend_folder(target)
    temporary, lock = open_part(target)
    try:
        yield temporary
        replace_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        unlock_folder(lock)


def folder_place(path: str | Path) -> Path:
    """Where a whole folder will stand, links followed; what cannot be replaced by another folder is refused before anything is written."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # a Path has made one stroke of the two
        raise InputError(f"{path}: an address; a folder on this machine is needed")
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise InputError(f"{path}: a file stands there; a folder is needed")
    if os.path.ismount(target):
        raise InputError(f"{path}: a mount point, which no other folder can replace; give a folder inside it")
    if target.is_dir() and target.samefile("."):
        raise InputError(f"{path}: the working folder itself, which would be replaced; give a name inside it, or run this elsewhere")
    return target


def refuse_foreign(folder: Path, own: Collection[str], what: str) -> None:
    """Refuses a folder with anything in it that is no part of `what`: a folder is replaced whole, so that would be lost."""
    foreign = sorted(one.name for one in folder.iterdir() if one.name not in own) if folder.is_dir() else []
    if foreign:
        raise InputError(f"{folder}: holds {foreign[0]!r}, which is no part of {what} and would be lost; choose a new folder")


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


def sha256_of(path: str | Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 in hexadecimal; `on_bytes` hears how many more have been read, a few megabytes at a time."""
    with open_read(path) as stream:
        if on_bytes is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        digest = hashlib.sha256()
        while chunk := stream.read(HASH_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
        return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """One JSON value, indented, atomically."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)
        stream.write("\n")


def read_json(path: str | Path) -> Any:
    """One JSON value; an error of one line where the file is missing or is no JSON."""
    try:
        with open_read(path) as stream:
            content = stream.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # no JSON, no Unicode, a number of thousands of digits, thousands of brackets
        raise InputError(f"{path}: not valid JSON ({error})") from error


def write_json_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """One JSON object per line, atomically; returns how many."""
    count = 0
    with atomic_write(path, "w") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a broken line is named by its number."""
    try:
        with open_read(path) as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not valid JSON ({error})") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {number}: a JSON object is needed, got {type(row).__name__}")
                yield row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
