"""Megatron's indexed token files: `NAME.bin` (ids) and `NAME.idx`.

The index is `MMIDIDX` and two zero bytes, version 1 (uint64), a code for the ids' type (uint8), the number of sequences and of document
indices (uint64 each), then per sequence its length (int32) and its first byte in the .bin file (int64), then the document indices (int64):
for each document its first sequence, and the number of sequences last. All little-endian.
"""

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import InputError
from data_pipeline.interchange.files import written_together
from data_pipeline.interchange.tokens import BLOCK_TOKENS, DTYPES, Block, TokenFile, check_ids, map_file

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
CODES = {8: "uint16", 4: "int32"}
LENGTH, POINTER = np.dtype("<i4"), np.dtype("<i8")
PIECE = 2**20  # sequences looked at together


def pair(path: Path) -> tuple[Path, Path]:
    """The .bin and .idx file of a name with or without one of these endings."""
    stem = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    return stem.with_name(f"{stem.name}.bin"), stem.with_name(f"{stem.name}.idx")


def open_megatron(path: Path) -> TokenFile:
    """Opens and checks both files."""
    data, index = pair(path)
    for file in (data, index):
        if not file.is_file():
            raise InputError(f"{file}: no such file; Megatron's form is a .bin and an .idx file")
    with open(index, "rb") as stream:
        head = stream.read(HEADER.size)
    if len(head) < HEADER.size or head[:9] != MAGIC:
        raise InputError(f"{index}: does not begin like an index of Megatron (MMIDIDX)")
    _, version, code, sequences, bounds = HEADER.unpack(head)
    if version != 1 or code not in CODES:
        raise InputError(f"{index}: version {version} with ids of type {code}; version 1 with uint16 (8) or int32 (4) is read")
    at_pointers = HEADER.size + sequences * LENGTH.itemsize
    at_documents = at_pointers + sequences * POINTER.itemsize
    needed, size = at_documents + bounds * POINTER.itemsize, index.stat().st_size
    if size < needed or not bounds:
        raise InputError(f"{index}: {size} bytes, but {sequences} sequences and {bounds} bounds need {needed}; the file is truncated")
    if size > needed:
        raise InputError(f"{index}: {size - needed} bytes after the index; modes of sequences, as of several media, are not read")
    lengths = map_file(index, LENGTH, HEADER.size, sequences)
    pointers = map_file(index, POINTER, at_pointers, sequences)
    firsts = map_file(index, POINTER, at_documents, bounds)
    dtype = DTYPES[CODES[code]]
    tokens = check_index(index, lengths, pointers, firsts, dtype.itemsize)
    if data.stat().st_size != tokens * dtype.itemsize:
        raise InputError(
            f"{data}: {data.stat().st_size} bytes, but its index has {tokens} tokens of {dtype.itemsize} bytes; it is truncated"
        )
    ids = map_file(data, dtype)
    notes = (f"{sequences} sequences of {bounds - 1} documents: only the documents' ends are kept",) if sequences != bounds - 1 else ()
    return TokenFile(
        where=str(data),
        dtype=CODES[code],
        tokens=tokens,
        documents=bounds - 1,
        blocks=lambda: document_blocks(ids, lengths, firsts),
        notes=notes,
    )


def check_index(path: Path, lengths: NDArray[Any], pointers: NDArray[Any], firsts: NDArray[Any], width: int) -> int:
    """The number of tokens; sequences must lie side by side, and documents' first sequences must rise to their number."""
    at = 0
    for start in range(0, len(lengths), PIECE):
        piece = np.asarray(lengths[start : start + PIECE]).astype(np.int64)
        expected = at + np.concatenate([[0], np.cumsum(piece)])
        if piece.min(initial=0) < 0 or np.any(pointers[start : start + PIECE] != expected[:-1] * width):
            raise InputError(f"{path}: sequences must lie one behind the other, without gaps; the index is damaged")
        at = int(expected[-1])
    if firsts[0] != 0 or firsts[-1] != len(lengths) or np.any(np.diff(firsts) < 0):
        raise InputError(f"{path}: documents must begin at rising sequences from 0 to {len(lengths)}; the index is damaged")
    return at


def document_blocks(ids: NDArray[Any], lengths: NDArray[Any], firsts: NDArray[Any]) -> Iterator[Block]:
    """Whole documents, their sequences joined."""
    at, document = 0, 0
    while document < len(firsts) - 1:
        bounds = np.asarray(firsts[document : document + PIECE + 1])
        ends = np.concatenate([[0], np.cumsum(lengths[bounds[0] : bounds[-1]], dtype=np.int64)])[bounds[1:] - bounds[0]]
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            last = max(start + 1, int(np.searchsorted(ends, before + BLOCK_TOKENS, side="right")))
            stop = int(ends[last - 1])
            yield Block(np.asarray(ids[at + before : at + stop]), ends[start:last] - before)
            start = last
        at += int(ends[-1])
        document += len(ends)


def write_megatron(source: TokenFile, path: Path, dtype: str) -> None:
    """Writes both files, one sequence per document."""
    if dtype not in CODES.values():
        raise InputError(f"{path}: {dtype} is no type that Megatron reads ids of; it takes {' or '.join(CODES.values())}")
    data, index = pair(path)
    width = DTYPES[dtype].itemsize
    code = next(code for code, name in CODES.items() if name == dtype)
    lengths_file = index.with_name(f".{index.name}.lengths.part")
    with written_together([data, index]) as parts, ExitStack() as streams:
        streams.callback(lengths_file.unlink, missing_ok=True)
        with open(parts[0], "wb") as ids, open(lengths_file, "wb") as lengths:
            for block in source.blocks():
                check_ids(block, dtype, source.vocab_size, source.where)
                ids.write(block.ids.astype(DTYPES[dtype]).tobytes())
                lengths.write(np.diff(block.ends, prepend=0).astype(LENGTH).tobytes())
        count = lengths_file.stat().st_size // LENGTH.itemsize
        all_lengths = map_file(lengths_file, LENGTH, 0, count)
        with open(parts[1], "wb") as stream:
            stream.write(HEADER.pack(MAGIC, 1, code, count, count + 1))
            for start in range(0, count, PIECE):
                stream.write(all_lengths[start : start + PIECE].tobytes())
            at = 0
            for start in range(0, count, PIECE):
                ends = at + np.cumsum(all_lengths[start : start + PIECE], dtype=np.int64)
                stream.write((np.concatenate([[at], ends[:-1]]) * width).astype(POINTER).tobytes())
                at = int(ends[-1])
            for start in range(0, count + 1, PIECE):
                stream.write(np.arange(start, min(start + PIECE, count + 1)).astype(POINTER).tobytes())
