"""What every form of token file is read into and written from: blocks of whole documents; and a digest by which two files are compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.errors import InputError

BLOCK_TOKENS = 2**21  # of one block, unless a document alone is longer
DTYPES = {"uint16": np.dtype("<u2"), "int32": np.dtype("<i4"), "uint32": np.dtype("<u4")}


class Block(NamedTuple):
    """Some documents in a row: ids [tokens] and each one's exclusive end among them [documents]."""

    ids: NDArray[Any]
    ends: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """An opened token file of any form; `blocks()` reads it from its beginning. `vocab_size` is 0 where the file does not say."""

    where: str
    dtype: str
    tokens: int
    documents: int
    blocks: Callable[[], Iterator[Block]]
    vocab_size: int = 0
    tokenizer: str = ""  # whatever the file says of it
    notes: tuple[str, ...] = ()


class Digest:
    """Of tokens and document lengths, whatever their width in the file."""

    def __init__(self) -> None:
        self.ids, self.lengths = xxhash.xxh3_128(), xxhash.xxh3_128()
        self.tokens = self.documents = self.largest = 0

    def add(self, block: Block) -> None:
        self.ids.update(np.ascontiguousarray(block.ids, "<u4").data)
        self.lengths.update(np.diff(block.ends, prepend=0).astype("<u8").data)
        self.tokens += len(block.ids)
        self.documents += len(block.ends)
        self.largest = max(self.largest, int(block.ids.max(initial=0)))

    def hexdigest(self) -> str:
        return f"{self.ids.hexdigest()}:{self.lengths.hexdigest()}"


def digest_of(file: TokenFile) -> Digest:
    """The digest of a whole file."""
    digest = Digest()
    for block in file.blocks():
        digest.add(block)
    return digest


def map_file(path: Path, dtype: np.dtype[Any], offset: int = 0, count: int | None = None) -> NDArray[Any]:
    """The file's values from a byte on, memory-mapped; an empty part is an empty array, which no map can be."""
    size = path.stat().st_size
    count = (size - offset) // dtype.itemsize if count is None else count
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.empty(0, dtype)


def cut_blocks(ids: NDArray[Any], ends: NDArray[Any], where: str) -> Iterator[Block]:
    """Blocks of about BLOCK_TOKENS tokens of a long row of ids; ends that fall or leave the row are refused."""
    first, start = 0, 0
    while first < len(ends):
        # Ends are looked at in pieces, so that a crawl's index never lies in memory as a whole.
        piece = np.asarray(ends[first : first + BLOCK_TOKENS]).astype(np.int64)
        last = max(1, int(np.searchsorted(piece, start + BLOCK_TOKENS, side="right")))
        piece = piece[:last]
        if piece[0] < start or np.any(np.diff(piece) < 0) or piece[-1] > len(ids):
            raise InputError(f"{where}: document ends must rise and stay within {len(ids)} tokens; the file is damaged")
        stop = int(piece[-1])
        yield Block(np.asarray(ids[start:stop]), piece - start)
        first, start = first + last, stop


def check_ids(block: Block, dtype: str, vocab_size: int, where: str) -> None:
    """Refuses ids that the target's numbers or its vocabulary cannot hold."""
    if not len(block.ids):
        return
    least, largest, most = int(block.ids.min()), int(block.ids.max()), int(np.iinfo(DTYPES[dtype]).max)
    if least < 0:
        raise InputError(f"{where}: the id {least} is negative; the file is damaged, or its ids are of another type")
    if largest > most:
        raise InputError(f"{where}: the id {largest} does not fit {dtype} (up to {most}); choose another --dtype")
    if vocab_size and largest >= vocab_size:
        raise InputError(f"{where}: the id {largest} is not in the vocabulary of {vocab_size} entries")
