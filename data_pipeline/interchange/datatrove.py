"""datatrove's token files.

`NAME.ds` holds little-endian uint16 or uint32, `NAME.ds.index` the exclusive end of each document (uint64), and `NAME.ds.metadata` three
lines: tokenizer and bytes per token with a bar between them, tokens, tokens in words. `NAME.ds.loss` is a mask, one byte per token.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.interchange.files import written_together
from data_pipeline.interchange.tokens import DTYPES, Block, TokenFile, check_ids, cut_blocks, map_file

SIZES = {2: "uint16", 4: "uint32"}
INDEX = np.dtype("<u8")


def open_datatrove(path: Path, ignore_loss_mask: bool = False) -> TokenFile:
    """A `.ds` file, or all of a folder in the order of their names, as one row of documents."""
    files = sorted(path.glob("*.ds")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(f"{path}: no such .ds file")
    opened = [open_one(file, ignore_loss_mask) for file in files]
    if len({one.dtype for one in opened}) > 1:
        raise InputError(f"{path}: files of {' and '.join(sorted({one.dtype for one in opened}))} ids; they must be of one type")

    def blocks() -> Iterator[Block]:
        for one in opened:
            yield from one.blocks()

    return TokenFile(
        where=str(path),
        dtype=opened[0].dtype,
        tokens=sum(one.tokens for one in opened),
        documents=sum(one.documents for one in opened),
        blocks=blocks,
        tokenizer=opened[0].tokenizer,
        notes=tuple(note for one in opened for note in one.notes),
    )


def open_one(path: Path, ignore_loss_mask: bool) -> TokenFile:
    """One file; a size that does not agree with its index is a truncated file."""
    index, metadata, loss = (path.with_name(f"{path.name}.{name}") for name in ("index", "metadata", "loss"))
    if not index.is_file():
        raise InputError(f"{index}: no such file; without it the ends of documents are unknown")
    if loss.exists() and not ignore_loss_mask:
        raise InputError(f"{loss}: a loss mask, for which token files here have no place; --ignore-loss-mask leaves it behind")
    if index.stat().st_size % INDEX.itemsize:
        raise InputError(f"{index}: {index.stat().st_size} bytes are no whole number of 8-byte ends; the file is truncated")
    ends = map_file(index, INDEX)
    tokens = int(ends[-1]) if len(ends) else 0
    name, told = read_metadata(metadata)
    size = path.stat().st_size
    if told is None:
        told = size // tokens if tokens else 2
    if told not in SIZES or size != tokens * told:
        raise InputError(f"{path}: {size} bytes, but its index ends at {tokens} tokens of {told} bytes; the file is truncated or damaged")
    ids = map_file(path, DTYPES[SIZES[told]])
    return TokenFile(
        where=str(path),
        dtype=SIZES[told],
        tokens=tokens,
        documents=len(ends),
        blocks=lambda: cut_blocks(ids, ends, str(index)),
        tokenizer=name,
        notes=(f"{loss.name} left behind",) if loss.exists() else (),
    )


def read_metadata(path: Path) -> tuple[str, int | None]:
    """Tokenizer and bytes per token; nothing where there is no such file."""
    if not path.is_file():
        return "", None
    try:
        name, _, size = path.read_text(encoding="utf-8").split("\n")[0].rpartition("|")
        return name, int(size)
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: its first line must be TOKENIZER|BYTES, for example gpt2|2") from error


def write_datatrove(source: TokenFile, path: Path, dtype: str) -> None:
    """Writes the three files; `path` ends with .ds."""
    if dtype not in SIZES.values():
        raise InputError(f"{path}: {dtype} is no type of .ds files; they take {' or '.join(SIZES.values())}")
    names = [path, *(path.with_name(f"{path.name}.{name}") for name in ("index", "metadata"))]
    with written_together(names) as parts, ExitStack() as streams:
        ids, ends = (streams.enter_context(open(part, "wb")) for part in parts[:2])
        tokens = 0
        for block in source.blocks():
            check_ids(block, dtype, source.vocab_size, source.where)
            ids.write(block.ids.astype(DTYPES[dtype]).tobytes())
            ends.write((block.ends + tokens).astype(INDEX).tobytes())
            tokens += len(block.ids)
        size = DTYPES[dtype].itemsize
        parts[2].write_text(f"{source.tokenizer or 'unknown'}|{size}\n{tokens}\n{in_words(tokens)}", encoding="utf-8")


def in_words(tokens: int) -> str:
    """Three digits and a unit: 12345 is 12.3 kT."""
    value, unit = float(tokens), 0
    while value >= 999.5 and unit < 5:
        value, unit = value / 1000, unit + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {' kMGTP'[unit].strip()}T"
