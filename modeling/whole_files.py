"""Files and folders that appear whole or not at all, and their hashes. Folders are local; files may be fsspec URLs."""

import hashlib
import json
import os
import shutil
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
    return not mark or scheme == "file"


def store_of(path: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path inside it."""
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
    """A local folder that appears at `path` complete. What stood there is replaced; it stays when the block raises."""
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: a file stands there; a folder is needed")
    make_folder(target.parent)
    for stale in target.parent.glob(f".{target.name}.*.part"):  # left by a run that was killed here
        shutil.rmtree(stale, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    temporary.mkdir()
    try:
        yield temporary
        flush_folder(temporary)
        if target.exists():
            retired = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
            os.replace(target, retired)
            os.replace(temporary, target)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


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


def read_json(path: str | Path) -> Any:
    """One JSON value; an error of one line where the file is missing or is no JSON."""
    try:
        store_of(path)
        with fsspec.open(str(path), "rb") as stream:
            return json.load(stream)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: a folder stands there; a JSON file is needed") from error
    except NotADirectoryError as error:
        raise ModelError(f"{path}: no such file; one of the folders that it names is a file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error


def sha256_of(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with fsspec.open(str(path), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
