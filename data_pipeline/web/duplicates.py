"""Exact and near duplicates. Near: MinHash signatures of word shingles, bands, and the estimated Jaccard similarity of each candidate pair.

Signatures use multiply-shift permutations of 64-bit shingle hashes (Dietzfelbinger et al. 1997); the share of equal places of two
signatures estimates the Jaccard similarity of the shingle sets (Broder 1997). Everything is a function of the texts in their order.
"""

from collections.abc import Sequence

import numpy as np
import xxhash

from data_pipeline.web.measures import ngram_hashes
from data_pipeline.web.recipe import Duplicates

CHUNK = 8192  # shingles at a time, so that the [permutations, shingles] table stays small


def text_key(text: str) -> bytes:
    """Sixteen bytes that are equal for texts that differ in white space only."""
    return xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "surrogatepass"))


def permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd multipliers and offsets of the permutations: [count, 1] each, the same in every run."""
    chance = np.random.Generator(np.random.PCG64(20_240_607))
    multipliers = chance.integers(0, 2**63, (count, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return multipliers, chance.integers(0, 2**63, (count, 1), dtype=np.uint64)


def signature(word_hashes: np.ndarray, settings: Duplicates) -> np.ndarray:
    """The MinHash signature of a document: uint32 [bands * rows]; a document shorter than a shingle is one shingle."""
    shingles = np.unique(ngram_hashes(word_hashes, min(settings.shingle_words, max(len(word_hashes), 1))))
    multipliers, offsets = permutations(settings.bands * settings.rows)
    least = np.full(len(multipliers), 0xFFFFFFFF, np.uint64)
    for start in range(0, len(shingles), CHUNK):
        permuted = (shingles[None, start : start + CHUNK] * multipliers + offsets) >> np.uint64(32)
        least = np.minimum(least, permuted.min(axis=1))
    return least.astype(np.uint32)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The estimated Jaccard similarity: the share of equal places."""
    return float((one == other).mean())


def clusters(signatures: np.ndarray, settings: Duplicates) -> list[int]:
    """For each document the first document of its cluster; `signatures` is uint32 [documents, bands * rows].

    Documents that agree in a whole band are candidates; a candidate joins the first leader of its band that it is similar to, and leads
    itself otherwise, so a band with many documents costs (documents x leaders) and not all pairs.
    """
    parent = list(range(len(signatures)))
    for band in range(settings.bands):
        columns = np.ascontiguousarray(signatures[:, band * settings.rows : (band + 1) * settings.rows])
        for group in equal_rows(columns):
            leaders: list[int] = []
            for member in group:
                leader = next((one for one in leaders if similarity(signatures[one], signatures[member]) >= settings.threshold), None)
                if leader is None:
                    leaders.append(member)
                else:
                    join(parent, leader, member)
    return [root(parent, place) for place in range(len(parent))]


def equal_rows(columns: np.ndarray) -> list[list[int]]:
    """The groups of two or more equal rows, each in rising order, the groups by their first row."""
    if not len(columns):
        return []
    keys = columns.view(np.dtype((np.void, columns.dtype.itemsize * columns.shape[1]))).ravel()
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(order, np.cumsum(counts)[:-1])
    return sorted(group.tolist() for group in groups if len(group) > 1)


def root(parent: list[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


def join(parent: list[int], one: int, other: int) -> None:
    """Joins two clusters under the earlier document."""
    first, second = sorted((root(parent, one), root(parent, other)))
    parent[second] = first


def exact_originals(keys: Sequence[bytes]) -> list[int]:
    """For each document the first one with the same text."""
    first: dict[bytes, int] = {}
    return [first.setdefault(key, place) for place, key in enumerate(keys)]
