"""Our own token shards as a form among the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.interchange.tokens import DTYPES, Block, TokenFile, check_ids, cut_blocks
from data_pipeline.storage import atomic_folder, sha256_of, write_json
from data_pipeline.tokens.shards import FORMAT, ShardWriter, TokenShards
from data_pipeline.tokens.tokenizer import end_of_text_id, load_tokenizer


def open_shards(folder: Path) -> TokenFile:
    """A folder of shards, every file's SHA-256 checked."""
    shards = TokenShards.open(folder, verify=True)

    def blocks() -> Iterator[Block]:
        for number in range(shards.num_shards):
            start, stop = int(shards.bounds[number]), int(shards.bounds[number + 1])
            yield from cut_blocks(shards.read(start, stop), shards.ends(number, number + 1) - start, str(folder))

    return TokenFile(
        where=str(folder),
        dtype=str(np.dtype(shards.read(0, 1).dtype)),
        tokens=shards.num_tokens,
        documents=shards.num_documents,
        blocks=blocks,
        vocab_size=shards.vocab_size,
        tokenizer=shards.tokenizer_sha256,
    )


def tokenizer_facts(folder: str | Path) -> dict[str, Any]:
    """What a manifest says of a tokenizer, and the id that ends documents."""
    tokenizer = load_tokenizer(folder)
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "tokenizer_sha256": sha256_of(Path(folder) / "tokenizer.json"),
        "end": end_of_text_id(tokenizer),
    }


def write_shards(source: TokenFile, out: Path, name: str, shard_tokens: int, facts: dict[str, Any]) -> None:
    """Writes a folder of shards. `facts`: see tokenizer_facts; every document of the source must end with its end of text."""
    if out.exists():
        raise InputError(f"{out}: stands there already; give another name or take it away")
    dtype = "uint16" if facts["vocab_size"] <= 65_536 else "uint32"
    with atomic_folder(out) as folder:
        writer = ShardWriter(folder, shard_tokens, DTYPES[dtype])
        for block in source.blocks():
            check_ids(block, dtype, facts["vocab_size"], source.where)
            check_ends(block, facts["end"], writer.documents, source.where)
            for start, stop in zip([0, *block.ends[:-1].tolist()], block.ends.tolist(), strict=True):
                writer.add(block.ids[start:stop])
        writer.close()
        if not writer.shards:
            raise InputError(f"{source.where}: no documents; token shards need at least one")
        manifest = {"format": FORMAT, "source": name, "dtype": dtype, **{key: facts[key] for key in ("vocab_size", "tokenizer_sha256")}}
        manifest |= {"tokens": writer.tokens, "documents": writer.documents, "shards": writer.shards}
        write_json(folder / "manifest.json", manifest)


def check_ends(block: Block, end: int, before: int, where: str) -> None:
    """Refuses a document that is empty or does not end with the end of text."""
    lengths = np.diff(block.ends, prepend=0)
    if not lengths.all():
        raise InputError(f"{where}: document {before + int(np.argmin(lengths))} is empty; token shards hold no empty documents")
    last = block.ids[block.ends - 1]
    if np.any(last != end):
        wrong = int(np.flatnonzero(last != end)[0])
        raise InputError(
            f"{where}: document {before + wrong} ends with the id {int(last[wrong])}; documents of token shards end with <|endoftext|>, "
            f"which is {end} here: the files are of another tokenizer, or were written without it"
        )
