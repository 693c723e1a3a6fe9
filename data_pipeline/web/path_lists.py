"""Lists of crawl files, as Common Crawl publishes them (`warc.paths.gz`): an address per line."""

import posixpath
import re
import zlib
from urllib.parse import urlsplit

from data_pipeline import storage
from data_pipeline.errors import InputError

COMMON_CRAWL = "https://data.commoncrawl.org/"
MAX_BYTES = 1 << 28  # of a list; Common Crawl's have some 14 MB
NAMED_LIST = re.compile(r"\.paths(\.gz)?$")
STRANGE = re.compile(r"[\x00-\x1f\x7f\ufffd<>]")


def is_list(path: str) -> bool:
    return NAMED_LIST.search(path) is not None


def listed(path: str, prefix: str = "") -> list[str]:
    """The files that a list names, globs resolved, in its order. Relative ones stand below `prefix`, else where `default_prefix` says.

    Raises InputError with the file and the line where a line is no address or names nothing.
    """
    prefix = prefix or default_prefix(path)
    found: dict[str, None] = {}
    for number, line in enumerate(content_of(path).decode("utf-8", errors="replace").splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if STRANGE.search(entry) or len(entry) > 4096:
            raise InputError(f"{path}: line {number}: a path or an address is needed, got {entry[:80]!r}")
        if is_list(entry):
            raise InputError(f"{path}: line {number}: a list within a list: {entry}")
        address = resolved(entry, prefix)
        try:
            # Addresses of a remote store are many and are not looked up one by one.
            names = storage.expand(address) if storage.is_local(address) or any(mark in address for mark in "*[") else [address]
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from error
        found.update(dict.fromkeys(names))
    if not found:
        raise InputError(f"{path}: an empty list; a path or an address per line is needed")
    return list(found)


def resolved(entry: str, prefix: str) -> str:
    if entry.startswith("file://"):
        return entry.removeprefix("file://")
    if "://" in entry or entry.startswith("/"):
        return entry
    return f"{prefix.rstrip('/')}/{entry}" if prefix else entry


def default_prefix(path: str) -> str:
    """Common Crawl's lists are relative to their host or bucket; a local list to its own folder."""
    if storage.is_local(path):
        return posixpath.dirname(path.removeprefix("file://"))
    parts = urlsplit(path)
    return COMMON_CRAWL if parts.netloc == "data.commoncrawl.org" else f"{parts.scheme}://{parts.netloc}/"


def content_of(path: str) -> bytes:
    try:
        with storage.open_read(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except InputError:
        raise
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: a list of files cannot be read: {type(error).__name__}: {error}") from error
    if data[:2] == b"\x1f\x8b":
        parts: list[bytes] = []
        size = 0
        try:
            while data.strip(b"\x00") and size <= MAX_BYTES:
                unit = zlib.decompressobj(wbits=31)
                parts.append(unit.decompress(data, MAX_BYTES + 1 - size))
                size += len(parts[-1])
                if not unit.eof and size <= MAX_BYTES:
                    raise InputError(f"{path}: a list of files cannot be read: truncated gzip data")
                data = unit.unused_data
        except zlib.error as error:
            raise InputError(f"{path}: a list of files cannot be read: {error}") from error
        data = b"".join(parts)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: a list of files may have {MAX_BYTES:,} bytes, this one has more")
    return data
