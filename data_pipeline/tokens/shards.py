"""Token shards: flat little-endian ids, the end of every document, and a manifest that is written last.

`tokens-00000.bin` holds ids (uint16, uint32 above 65,536 entries), `ends-00000.bin` the exclusive end offset of each document in its shard
(uint64). Every document ends with `<|endoftext|>` and lies whole in one shard.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, read_json, sha256_of, write_json
from data_pipeline.tokens.plain_text import encode_texts
from data_pipeline.tokens.recipe import TokensRecipe
from data_pipeline.tokens.tokenizer import end_of_text_id, load_tokenizer

FORMAT = 1
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
END_DTYPE = np.dtype("<u8")
OPEN_SHARDS = 64  # token files of one source that are mapped at a time
SHARD_KEYS = {"tokens_file", "ends_file", "tokens", "documents", "tokens_sha256", "ends_sha256"}
MANIFEST_KEYS = {"format", "source", "dtype", "vocab_size", "tokenizer_sha256", "tokens", "documents", "shards"}


def tokenize(
    recipe: TokensRecipe,
    tokenizer_folder: str | Path,
    source: str,
    texts: Iterable[str],
    out: Path,
    on_progress: Callable[[int, int], None] | None = None,
    made_from: str = "",
) -> dict[str, Any]:
    """Writes the texts of one source as shards into the folder `out`, complete or not at all; returns the manifest.

    Empty texts are left out. `on_progress` is told documents and tokens so far, after every batch. `made_from`, the
    fingerprint of the file that the texts came from, is noted in the manifest.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    end = end_of_text_id(tokenizer)
    vocab_size = tokenizer.get_vocab_size()
    name = "uint16" if vocab_size <= 65_536 else "uint32"
    full = (text for text in texts if text)
    with atomic_folder(out) as folder:
        writer = ShardWriter(folder, recipe.shard_tokens, DTYPES[name])
        while batch := list(islice(full, recipe.batch_documents)):
            for ids in encode_texts(tokenizer, batch):
                writer.add([*ids, end])
            if on_progress is not None:
                on_progress(writer.documents, writer.tokens)
        writer.close()
        if not writer.shards:
            raise InputError(f"tokens/{source}: no text to tokenize; at least one document that is not empty is needed")
        manifest = {
            "format": FORMAT,
            "source": source,
            "dtype": name,
            "vocab_size": vocab_size,
            "tokenizer_sha256": sha256_of(Path(tokenizer_folder) / "tokenizer.json"),
            "tokens": writer.tokens,
            "documents": writer.documents,
            "shards": writer.shards,
            **({"texts": made_from} if made_from else {}),
        }
        write_json(folder / "manifest.json", manifest)
    return manifest


class ShardWriter:
    """Gathers documents and writes a shard when the next one would take it past `shard_tokens`."""

    def __init__(self, folder: Path, shard_tokens: int, dtype: np.dtype[Any]) -> None:
        self.folder = folder
        self.shard_tokens = shard_tokens
        self.dtype = dtype
        self.shards: list[dict[str, Any]] = []
        self.tokens = 0
        self.documents = 0
        self.pending: list[NDArray[Any]] = []
        self.pending_tokens = 0

    def add(self, ids: list[int] | NDArray[Any]) -> None:
        if self.pending and self.pending_tokens + len(ids) > self.shard_tokens:
            self.close()
        self.pending.append(np.array(ids, self.dtype))
        self.pending_tokens += len(ids)
        self.tokens += len(ids)
        self.documents += 1

    def close(self) -> None:
        """Writes what is pending as one shard."""
        if not self.pending:
            return
        tokens = self.folder / f"tokens-{len(self.shards):05d}.bin"
        ends = self.folder / f"ends-{len(self.shards):05d}.bin"
        tokens.write_bytes(np.concatenate(self.pending).tobytes())
        ends.write_bytes(np.cumsum([len(ids) for ids in self.pending]).astype(END_DTYPE).tobytes())
        self.shards.append(
            {
                "tokens_file": tokens.name,
                "ends_file": ends.name,
                "tokens": self.pending_tokens,
                "documents": len(self.pending),
                "tokens_sha256": sha256_of(tokens),
                "ends_sha256": sha256_of(ends),
            }
        )
        self.pending, self.pending_tokens = [], 0


class TokenShards:
    """The shards of one source, read as one long row of ids; files are memory-mapped when they are first read.

    `fingerprint` lists the hashes of the tokenizer and of all files, `bounds` (shards + 1,) where each shard begins in the long row.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.source: str = manifest["source"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokenizer_sha256: str = manifest["tokenizer_sha256"]
        self.num_tokens: int = manifest["tokens"]
        self.num_documents: int = manifest["documents"]
        self.manifest = manifest
        self.shards: list[dict[str, Any]] = manifest["shards"]
        self.fingerprint = [
            self.tokenizer_sha256,
            *(shard[key] for shard in self.shards for key in ("tokens_sha256", "ends_sha256")),
        ]
        self.bounds = np.cumsum([0, *(shard["tokens"] for shard in self.shards)])
        self._dtype = DTYPES[manifest["dtype"]]
        self._map = lru_cache(maxsize=OPEN_SHARDS)(self._map_tokens)  # a map holds a file handle, and a crawl has more shards than handles

    @classmethod
    def open(cls, folder: str | Path, verify: bool = False, on_hashed: Callable[[int], None] | None = None) -> "TokenShards":
        """Opens a folder written by `tokenize`; `on_hashed` hears of every few megabytes that `verify` has read.

        Sizes of all files are always checked; the SHA-256 of every file and all ends with `verify`, else a shard's ends when they are
        first read.
        """
        root = Path(folder)
        manifest = read_manifest(root)
        dtype = DTYPES[manifest["dtype"]]
        for shard in manifest["shards"]:
            check_size(root / shard["tokens_file"], dtype, shard["tokens"])
            check_size(root / shard["ends_file"], END_DTYPE, shard["documents"])
            if verify:
                check_hash(root / shard["tokens_file"], shard["tokens_sha256"], on_hashed)
                check_hash(root / shard["ends_file"], shard["ends_sha256"], on_hashed)
        found = cls(root, manifest)
        if verify:
            for number in range(found.num_shards):
                found.ends(number, number + 1)
        return found

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @property
    def num_bytes(self) -> int:
        """Of all the files that a manifest has a SHA-256 of."""
        return sum(shard["tokens"] * self._dtype.itemsize + shard["documents"] * END_DTYPE.itemsize for shard in self.shards)

    @cached_property
    def end_of_text_id(self) -> int:
        """The id with which every document ends."""
        return int(self._map(0)[-1])

    def ends(self, first: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """(documents,) the exclusive end in the long row of every document of the shards from `first` to `stop`."""
        return np.concatenate([self._ends_of(number) for number in range(first, self.num_shards if stop is None else stop)])

    def _ends_of(self, number: int) -> NDArray[np.int64]:
        shard = self.shards[number]
        path = self.folder / shard["ends_file"]
        local = mapped(path, END_DTYPE, shard["documents"]).astype(np.int64)
        if len(local) == 0 or local[0] <= 0 or np.any(np.diff(local) <= 0) or local[-1] != shard["tokens"]:
            raise InputError(f"{path}: document ends must rise to the shard's {shard['tokens']} tokens; write it again")
        return local + self.bounds[number]

    def _map_tokens(self, number: int) -> NDArray[Any]:
        shard = self.shards[number]
        return mapped(self.folder / shard["tokens_file"], self._dtype, shard["tokens"])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The ids from `start` to `stop` of the long row; both must lie in one shard, as every document does."""
        shard = int(np.searchsorted(self.bounds, start, side="right")) - 1
        begin = int(self.bounds[shard])
        return self._map(shard)[start - begin : stop - begin]

    def documents(self) -> Iterator[NDArray[Any]]:
        """The ids of each document in stored order, its `<|endoftext|>` included."""
        start = 0
        for number in range(self.num_shards):
            for stop in self.ends(number, number + 1).tolist():
                yield self.read(start, stop)
                start = stop


def read_manifest(root: Path) -> dict[str, Any]:
    """The checked manifest of a shard folder."""
    path = root / "manifest.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; token shards are written by `phial data tokenize`")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise InputError(f"{path}: format {FORMAT} is needed, got {found!r}")
    shards = manifest.get("shards")
    if not isinstance(shards, list) or not shards or not all(isinstance(shard, dict) for shard in shards):
        raise InputError(f"{path}: shards must be a list of at least one shard; write them again with `phial data tokenize`")
    missing = sorted((MANIFEST_KEYS - manifest.keys()).union(*(SHARD_KEYS - shard.keys() for shard in shards)))
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; write the shards again with `phial data tokenize`")
    if manifest["dtype"] not in DTYPES:
        raise InputError(f"{path}: dtype must be one of {', '.join(DTYPES)}, got {manifest['dtype']!r}")
    for key in ("tokens", "documents"):
        total = sum(shard[key] for shard in shards)
        if manifest[key] != total:
            raise InputError(f"{path}: {key} is {manifest[key]}, but the shards hold {total}")
    return manifest


def mapped(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """The file as a read-only memory map of `count` values."""
    check_size(path, dtype, count)
    return np.memmap(path, dtype, mode="r", shape=(count,))


def check_size(path: Path, dtype: np.dtype[Any], count: int) -> None:
    """Refuses a file that does not hold exactly `count` values."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, though the manifest names it") from error
    if size != count * dtype.itemsize:
        raise InputError(f"{path}: {count} values of {dtype.name} ({count * dtype.itemsize} bytes) are needed, got {size} bytes")


def check_hash(path: Path, expected: str, on_bytes: Callable[[int], None] | None = None) -> None:
    found = sha256_of(path, on_bytes)
    if found != expected:
        raise InputError(f"{path}: SHA-256 {found} is not the manifest's {expected}; the file was changed, write it again")
