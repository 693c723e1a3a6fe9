"""Which Parquet file of texts a source's shards were made from, so that nobody takes them for those of a later build."""

import hashlib
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError

TAIL = 8  # bytes: the footer's length, little-endian, and the mark PAR1


def fingerprint_of(path: Path) -> str:
    """SHA-256 of a Parquet file's footer, which names every column chunk's size, least and greatest value; reads no text.

    Equal files have equal ones. That different ones differ is no proof, but takes texts of the same compressed sizes under the same ids.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - TAIL, 0))
        tail = stream.read()
        length = int.from_bytes(tail[:4], "little")
        if len(tail) < TAIL or tail[4:] != b"PAR1" or length + TAIL > size:
            raise InputError(f"{path}: not a Parquet file, or a cut one")
        stream.seek(size - TAIL - length)
        return hashlib.sha256(stream.read(length)).hexdigest()


def mismatch(manifest: dict[str, Any], path: Path, documents: int) -> str:
    """Why shards are not of the texts in `path`, of which `documents` are not empty; "" where nothing speaks against it."""
    if manifest["documents"] != documents:
        return f"{manifest['documents']:,} documents in the shards and {documents:,} in the build: they are of another build"
    if manifest.get("texts") and path.exists() and manifest["texts"] != fingerprint_of(path):
        return f"the shards were made from another {path.name}: they are of another build"
    return ""
