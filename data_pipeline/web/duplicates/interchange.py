"""Signatures as datatrove makes them, bit for bit, and its signature files: for crawls that are partly signed by it.

A shingle is its words joined by a blank, hashed by xxhash or SHA-1 to 32 or 64 bits. Place p of a signature is the least of
((h * a[p] + b[p]) modulo 2**64) modulo 2**61 - 1, of which 32-bit signatures keep the lower half. a, then b, come from numpy's
RandomState(seed).randint. What a word is, and how texts are simplified before, is the caller's: `words` are the tokens after both.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.duplicates.recipe import Duplicates

MERSENNE_61 = (1 << 61) - 1
Hash = Literal["xxhash", "sha1"]
Precision = Literal[32, 64]


@lru_cache(maxsize=8)
def mersenne_permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """a and b: uint64 [count] each."""
    chance = np.random.RandomState(seed)
    a = chance.randint(1, MERSENNE_61, dtype=np.uint64, size=count)
    return a, chance.randint(0, MERSENNE_61, dtype=np.uint64, size=count)


def shingle_hashes(words: Sequence[str], n: int, hash: Hash = "xxhash", precision: Precision = 64) -> np.ndarray:
    """The hash of each run of n words: uint64 [words - n + 1], empty for fewer words."""
    shingles = (" ".join(words[start : start + n]).encode() for start in range(len(words) - n + 1))
    if hash == "xxhash":
        digest = xxhash.xxh64_intdigest if precision == 64 else xxhash.xxh32_intdigest
        return np.fromiter((digest(one) for one in shingles), np.uint64)
    size = precision // 8
    return np.fromiter((int.from_bytes(hashlib.sha1(one).digest()[:size], "little") for one in shingles), np.uint64)


def interchange_signature(
    words: Sequence[str], settings: Duplicates, hash: Hash = "xxhash", precision: Precision = 64, seed: int = 1
) -> np.ndarray | None:
    """The signature: uint64 or uint32 [bands * rows]; None for a document of fewer words than a shingle has."""
    from data_pipeline.web.duplicates.loops import least_mersenne

    shingles = shingle_hashes(words, settings.shingle_words, hash, precision)
    if not len(shingles):
        return None
    a, b = mersenne_permutations(settings.bands * settings.rows, seed)
    least = np.full(len(a), 0xFFFFFFFFFFFFFFFF, np.uint64)
    least_mersenne(shingles, a, b, precision == 32, least)
    return least if precision == 64 else least.astype(np.uint32)


def write_interchange(folder: str | Path, signatures: np.ndarray, documents: np.ndarray, settings: Duplicates, rank: int = 0) -> list[Path]:
    """Writes bucket_BBB/RRRRR.minhash.sig: per band the values and the document's number (uint32) of each document, sorted by the values.

    `signatures` is uint64 or uint32 [n, bands * rows]; `documents` [n] are the places in the file of rank `rank`.
    """
    if signatures.ndim != 2 or signatures.shape[1] != settings.bands * settings.rows or signatures.dtype not in (np.uint32, np.uint64):
        raise InputError(
            f"signatures: uint32 or uint64 [documents, {settings.bands * settings.rows}] is needed, not "
            f"{signatures.dtype} {list(signatures.shape)}"
        )
    kind = np.dtype([("values", signatures.dtype.newbyteorder("<"), (settings.rows,)), ("document", "<u4")])
    paths = []
    for band in range(settings.bands):
        columns = signatures[:, band * settings.rows : (band + 1) * settings.rows]
        order = np.lexsort((documents, *columns.T[::-1]))
        records = np.empty(len(order), kind)
        records["values"], records["document"] = columns[order], np.asarray(documents)[order]
        paths.append(Path(folder) / f"bucket_{band:03d}" / f"{rank:05d}.minhash.sig")
        with storage.atomic_write(paths[-1]) as file:
            file.write(records.tobytes())
    return paths
