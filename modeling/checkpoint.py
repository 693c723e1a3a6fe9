"""Checkpoints: logical tensors in safetensors parts, and a manifest written last. A folder on any fsspec store.

    part-00000-3f2a9c11d0b4.safetensors   pieces of tensors, named by rank and content
    manifest.json                         {"format": 1, "metadata", "tensors": {name: {"shape", "dtype", "parts": [{"file", "offsets",
                                          "sizes", "key"}]}}, "files": {name: {"bytes", "sha256"}}}

A checkpoint is complete when its manifest is there. Every rank writes its own pieces with a `PartWriter`, and after all have closed theirs
one of them calls `finish_checkpoint`; the parts of a tensor tile it, so any number of ranks can read any slice of it back. A part's "key"
is its name in the file where that is not the tensor's.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modeling.checkpoint_manifest import check_manifest, check_tiling
from modeling.checkpoint_parts import PartReader, PartWriter, note_place
from modeling.errors import ModelError
from modeling.whole_files import read_json, sha256_of, store_of, write_json

FORMAT = 1
MANIFEST = "manifest.json"


def write_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes whole tensors from one rank. A checkpoint that stood in `folder` stays readable until the new manifest replaces its own."""
    check_metadata(folder, metadata)
    with PartWriter(folder) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
    finish_checkpoint(folder, 1, metadata)


def check_metadata(folder: str | Path, metadata: dict[str, Any]) -> None:
    """Refuses what JSON cannot hold before anything is written."""
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder}: a checkpoint's metadata must be JSON values ({error})") from error


def finish_checkpoint(folder: str | Path, num_ranks: int, metadata: dict[str, Any], attempt: str = "") -> None:
    """Joins what `num_ranks` ranks have written in this attempt into one manifest; called by one rank after all have closed their writers.

    The parts of every tensor must tile it exactly. Files of an earlier attempt are removed once the manifest is in place.
    """
    check_metadata(folder, metadata)
    tensors: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for rank in range(num_ranks):
        note = read_json(note_place(folder, rank, attempt))
        files.update(note["files"])
        for name, entry in note["tensors"].items():
            known = tensors.setdefault(name, {"shape": entry["shape"], "dtype": entry["dtype"], "parts": []})
            if (known["shape"], known["dtype"]) != (entry["shape"], entry["dtype"]):
                raise ModelError(
                    f"{folder}: ranks disagree on {name}: {known['dtype']}{known['shape']} and {entry['dtype']}{entry['shape']}"
                )
            known["parts"] += entry["parts"]
    for name, entry in tensors.items():
        check_tiling(f"{folder}: {name}", entry["shape"], entry["parts"])
    write_json(f"{folder}/{MANIFEST}", {"format": FORMAT, "metadata": metadata, "tensors": tensors, "files": files})
    remove_strays(folder, files)


def remove_strays(folder: str | Path, files: Mapping[str, Any]) -> None:
    """Deletes parts and notes that the manifest does not name."""
    store, inside = store_of(folder)
    for path in store.ls(inside, detail=False):
        name = path.rsplit("/", 1)[-1]
        if name not in files and re.fullmatch(r"\.?part-\d{5}.*", name):
            store.rm(path)


class Checkpoint:
    """A complete checkpoint, open for reading: `metadata`, `names`, and any slice of any tensor."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        store, inside = store_of(folder)
        if not store.isdir(inside):
            raise ModelError(f"{folder}: no such checkpoint folder")
        if not store.exists(f"{inside}/{MANIFEST}"):
            raise ModelError(f"{folder}: no {MANIFEST}; the checkpoint was not finished, or this is no checkpoint")
        manifest = read_json(f"{folder}/{MANIFEST}")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not {"metadata", "tensors", "files"} <= manifest.keys():
            found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            raise ModelError(f"{folder}/{MANIFEST}: a checkpoint manifest of format {FORMAT} is needed, got format {found!r}")
        check_manifest(f"{folder}/{MANIFEST}", manifest)
        self.metadata: dict[str, Any] = manifest["metadata"]
        self.tensors: dict[str, Any] = manifest["tensors"]
        self.files: dict[str, Any] = manifest["files"]
        self.reader = PartReader(self.folder)
        for name, facts in self.files.items():
            path = f"{inside}/{name}"
            size = store.size(path) if store.exists(path) else None
            if size is None:
                raise ModelError(f"{folder}: {name} is missing; the manifest names it")
            if size != facts["bytes"]:
                raise ModelError(f"{folder}: {name} is corrupt: {size} bytes where the manifest says {facts['bytes']}")

    @property
    def names(self) -> list[str]:
        """The tensors' names, in the order they were written."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        return tuple(self._entry(name)["shape"])

    def verify(self, share: int = 0, of: int = 1) -> None:
        """Compares every file with its SHA-256, or every `of`-th from `share` on; a corrupt one is named."""
        for name, facts in list(self.files.items())[share::of]:
            found = sha256_of(f"{self.folder}/{name}")
            if found != facts["sha256"]:
                raise ModelError(f"{self.folder}: {name} is corrupt: its SHA-256 is {found}, the manifest says {facts['sha256']}")

    def read(self, name: str, offsets: Iterable[int] | None = None, sizes: Iterable[int] | None = None) -> Tensor:
        """The tensor, or the box of `sizes` that begins at `offsets`; only the parts that touch it are read."""
        entry = self._entry(name)
        start = [0] * len(entry["shape"]) if offsets is None else list(offsets)
        extent = [length - first for length, first in zip(entry["shape"], start, strict=True)] if sizes is None else list(sizes)
        if len(extent) != len(entry["shape"]) or any(
            first < 0 or size < 0 or first + size > length for first, size, length in zip(start, extent, entry["shape"], strict=True)
        ):
            raise ModelError(f"{self.folder}: {name} has the shape {entry['shape']}; it has no box of sizes {extent} at {start}")
        return self.reader.read(name, entry, start, extent)

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self.tensors:
            raise ModelError(f"{self.folder}: no tensor {name!r}; it has {len(self.tensors)}, from {next(iter(self.tensors), None)!r} on")
        return self.tensors[name]


def read_checkpoint(
    folder: str | Path, names: Iterable[str] | None = None, verify: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (all, or those named) and the metadata; `verify` compares every file with its SHA-256 first."""
    checkpoint = Checkpoint(folder)
    if verify:
        checkpoint.verify()
    return {name: checkpoint.read(name) for name in (checkpoint.names if names is None else names)}, checkpoint.metadata


def list_checkpoints(folder: str | Path, report: Callable[[str], None] | None = None, names: str = r".*?(\d+)") -> list[str]:
    """The complete checkpoints inside `folder`, oldest first by the number their names end with; each unusable one gives a line.

    Only folders whose whole name matches `names` are looked at; its group is the number.
    """
    say = report or logging.getLogger("phial").warning
    store, inside = store_of(folder)
    if not store.isdir(inside):
        return []
    found: list[tuple[int, str]] = []
    for path in store.ls(inside, detail=False):
        name = path.rstrip("/").rsplit("/", 1)[-1]
        number = re.fullmatch(names, name, re.DOTALL)
        if number is None or name.startswith(".") or not store.isdir(path):
            continue
        try:
            Checkpoint(f"{folder}/{name}")
        except ModelError as error:
            say(f"checkpoint skipped: {error}")
            continue
        found.append((int(number[1]), f"{folder}/{name}"))
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: str | Path, report: Callable[[str], None] | None = None, verify: bool = False) -> str | None:
    """The newest complete checkpoint, or None; `verify` passes over one whose files do not match their SHA-256, with a line."""
    for path in reversed(list_checkpoints(folder, report)):
        try:
            if verify:
                Checkpoint(path).verify()
        except ModelError as error:
            (report or logging.getLogger("phial").warning)(f"checkpoint skipped: {error}")
            continue
        return path
    return None
