"""The files of a checkpoint: one rank's pieces of tensors written as safetensors, and any box of a tensor read back from its parts."""

import hashlib
import json
import math
import os
import struct
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save, save_file
from torch import Tensor

from modeling.errors import ModelError
from modeling.whole_files import is_local, make_folder, open_read, sha256_of, usual_mode, whole_file, write_json

FILE_BYTES = 2_000_000_000
# Tables of contents that a reader keeps: a rank's pieces lie in few files, thousands in each.
KEPT_HEADERS = 16

# What safetensors calls a dtype, and ours.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
DTYPE_NAMES = frozenset(str(dtype).removeprefix("torch.") for dtype in DTYPES.values())


def volume(sizes: Sequence[int]) -> int:
    """How many numbers a box holds."""
    return math.prod(sizes)


class PartWriter:
    """One rank's pieces: `add` them, and leave the `with` block. Files above `file_bytes` are split; one is held in memory.

    Nothing of an earlier checkpoint in the folder is touched: files are named by content, and `finish_checkpoint` decides what counts.
    `attempt` names this attempt at writing the folder: notes that ranks of a killed one have left are not this one's.
    """

    def __init__(self, folder: str | Path, rank: int = 0, file_bytes: int = FILE_BYTES, attempt: str = "") -> None:
        self.folder = str(folder)
        self.rank = rank
        self.attempt = attempt
        self.file_bytes = file_bytes
        self.held: dict[str, Tensor] = {}
        self.held_bytes = 0
        self.waiting: list[dict[str, Any]] = []
        self.tensors: dict[str, Any] = {}
        self.files: dict[str, Any] = {}
        if is_local(self.folder):
            target = Path(self.folder)
            if target.exists() and not target.is_dir():
                raise ModelError(f"{target}: a file stands there; a checkpoint is a folder")
            make_folder(target)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def add(
        self, name: str, piece: Tensor, shape: Sequence[int] | None = None, offsets: Sequence[int] | None = None, own: bool = False
    ) -> None:
        """A piece of the tensor `name` of the whole `shape`, beginning at `offsets`; by default the piece is the whole tensor.

        It is copied to host memory, except where it is said to be the writer's `own`.
        """
        whole = list(piece.shape if shape is None else shape)
        start = [0] * piece.ndim if offsets is None else list(offsets)
        if len(whole) != piece.ndim or len(start) != piece.ndim:
            raise ModelError(f"{self.folder}: {name}: a piece of {piece.ndim} dims needs as many offsets and sizes, got {start} in {whole}")
        dtype = str(piece.dtype).removeprefix("torch.")
        if dtype not in DTYPE_NAMES:
            raise ModelError(f"{self.folder}: {name} has the dtype {dtype}; a checkpoint holds {', '.join(sorted(DTYPE_NAMES))}")
        entry = self.tensors.setdefault(name, {"shape": whole, "dtype": dtype, "parts": []})
        if entry["shape"] != whole or entry["dtype"] != dtype:
            raise ModelError(f"{self.folder}: {name} came as {entry['dtype']}{entry['shape']} and as {dtype}{whole}")
        part = {"file": "", "offsets": start, "sizes": list(piece.shape)}
        key = name
        if entry["parts"]:
            key = part["key"] = f"{name}#{len(entry['parts'])}"  # a file names each of its pieces; the first has the tensor's own name
        if key in self.held or (self.held and self.held_bytes + piece.nbytes > self.file_bytes):  # another tensor may be called NAME#1
            self._flush()
        self.held[key] = piece if own else host_copy(piece)
        self.held_bytes += piece.nbytes
        entry["parts"].append(part)
        self.waiting.append(part)

    def close(self) -> None:
        """Writes what is held and the rank's note, which `finish_checkpoint` reads."""
        self._flush()
        write_json(note_place(self.folder, self.rank, self.attempt), {"tensors": self.tensors, "files": self.files})

    def _flush(self) -> None:
        if not self.held:
            return
        name, facts = write_part(self.folder, self.rank, self.held)
        self.files[name] = facts
        for part in self.waiting:
            part["file"] = name
        self.held, self.held_bytes, self.waiting = {}, 0, []


def host_copy(piece: Tensor) -> Tensor:
    """A copy of its own in host memory: the file format refuses tensors that share memory, and the caller may go on training."""
    return piece.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def note_place(folder: str | Path, rank: int, attempt: str) -> str:
    """Where a rank says that its pieces are written."""
    return f"{folder}/part-{rank:05d}{attempt and '-' + attempt}.json"


def write_part(folder: str, rank: int, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """One safetensors file; returns its name, which carries the beginning of its SHA-256, with its size and hash."""
    if not is_local(folder):
        content = save(tensors, metadata={"format": "pt"})
        digest = hashlib.sha256(content).hexdigest()
        name = f"part-{rank:05d}-{digest[:12]}.safetensors"
        with whole_file(f"{folder}/{name}") as stream:
            stream.write(content)
        return name, {"bytes": len(content), "sha256": digest}
    temporary = Path(folder) / f".part-{rank:05d}-{uuid.uuid4().hex[:8]}"
    try:
        with usual_mode(temporary):
            save_file(tensors, temporary, metadata={"format": "pt"})
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        digest = sha256_of(temporary)
        name = f"part-{rank:05d}-{digest[:12]}.safetensors"
        facts = {"bytes": temporary.stat().st_size, "sha256": digest}
        os.replace(temporary, Path(folder) / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return name, facts


class PartReader:
    """Reads boxes of the tensors of one checkpoint, and remembers where their parts lie: there may be thousands of each."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.headers: OrderedDict[str, tuple[dict[str, Any], int]] = OrderedDict()
        self.bounds: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def read(self, name: str, entry: dict[str, Any], offsets: list[int], sizes: list[int]) -> Tensor:
        """The box of a tensor, put together from the parts that touch it."""
        result = torch.empty(sizes, dtype=getattr(torch, entry["dtype"]))
        for part in self.touched(name, entry, offsets, sizes):
            inside, target = common_box(part["offsets"], part["sizes"], offsets, sizes)
            path = f"{self.folder}/{part['file']}"
            result[target] = self.read_part(path, part.get("key", name), part["sizes"], result.dtype, inside)
        return result

    def touched(self, name: str, entry: dict[str, Any], offsets: list[int], sizes: list[int]) -> list[dict[str, Any]]:
        """The parts that have numbers of the box."""
        if 0 in sizes:
            return []
        if not sizes:  # a single number, of which there is one part
            return entry["parts"]
        if name not in self.bounds:
            begins, extents = (np.array([part[of] for part in entry["parts"]], np.int64) for of in ("offsets", "sizes"))
            self.bounds[name] = begins, begins + extents
        begins, ends = self.bounds[name]
        stop = [first + size for first, size in zip(offsets, sizes, strict=True)]
        meets = (np.maximum(begins, offsets) < np.minimum(ends, stop)).all(axis=1)
        return [entry["parts"][place] for place in np.flatnonzero(meets)]

    def read_part(self, path: str, name: str, sizes: list[int], kind: torch.dtype, box: tuple[slice, ...]) -> Tensor:
        """A box of one stored piece of `sizes`. Only the rows of the first dim that the box spans are read from the store."""
        with open_read(path) as stream:
            header, base = self.header(stream, path)
            begin, end = piece_place(path, name, header, sizes, kind)
            shape = sizes
            if shape and volume(shape):
                row = (end - begin) // shape[0]
                begin, end = begin + box[0].start * row, begin + box[0].stop * row
                shape = [box[0].stop - box[0].start, *shape[1:]]
                box = (slice(None), *box[1:])
            stream.seek(base + begin)
            data = bytearray(stream.read(end - begin))
        if len(data) != end - begin:
            raise ModelError(f"{path}: ends in the middle of {name}")
        if not data:
            return torch.empty(shape, dtype=kind)[box]
        return torch.frombuffer(data, dtype=kind).view(shape)[box]

    def header(self, stream: IO[bytes], path: str) -> tuple[dict[str, Any], int]:
        """The file's table of contents; those read last are kept."""
        if path not in self.headers:
            self.headers[path] = read_header(stream, path)
            if len(self.headers) > KEPT_HEADERS:
                self.headers.popitem(last=False)
        self.headers.move_to_end(path)
        return self.headers[path]


def common_box(offsets: list[int], sizes: list[int], others: list[int], extents: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What two boxes of a tensor have in common, as slices of the one and of the other."""
    first = [max(a, b) for a, b in zip(offsets, others, strict=True)]
    last = [min(a + c, b + d) for a, b, c, d in zip(offsets, others, sizes, extents, strict=True)]
    inside = tuple(slice(a - b, c - b) for a, b, c in zip(first, offsets, last, strict=True))
    return inside, tuple(slice(a - b, c - b) for a, b, c in zip(first, others, last, strict=True))


def piece_place(path: str, name: str, header: dict[str, Any], sizes: list[int], dtype: torch.dtype) -> tuple[int, int]:
    """Where a piece's bytes begin and end in the file's data; a header that says anything else than the manifest is refused."""
    if name not in header:
        raise ModelError(f"{path}: no piece of {name}")
    told = header[name] if isinstance(header[name], dict) else {}
    if told.get("shape") != sizes or DTYPES.get(str(told.get("dtype"))) != dtype:
        found = f"{told.get('dtype')!r:.20} of the shape {told.get('shape')!r:.60}"
        raise ModelError(f"{path}: {name} is {found}, where the manifest says {dtype} of {sizes}".replace("torch.", ""))
    place = told.get("data_offsets")
    match place:
        case [int(begin), int(end)] if begin >= 0 and end - begin == volume(sizes) * dtype.itemsize:
            return begin, end
    raise ModelError(f"{path}: {name} has {volume(sizes) * dtype.itemsize} bytes; its place in the file is given as {place!r:.60}")


def read_header(stream: IO[bytes], path: str) -> tuple[dict[str, Any], int]:
    """A safetensors file's table of contents, and where its data begins."""
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > 100_000_000:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError(f"a header that is no table but {header!r:.30}")
        return header, 8 + length
    except (struct.error, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
