"""MinHash signatures of word shingles, and the key of an exact text.

Signatures use multiply-shift permutations of 64-bit shingle hashes (Dietzfelbinger et al. 1997); the share of equal places of two
signatures estimates the Jaccard similarity of the shingle sets (Broder 1997), with a standard error of sqrt(s (1 - s) / places). A shingle
that comes twice changes no minimum, so shingles need not be made unique.
"""

from functools import lru_cache

import numpy as np
import xxhash

from data_pipeline.web.duplicates.recipe import Duplicates
from data_pipeline.web.measures import ngram_hashes


def text_key(text: str) -> bytes:
    """Sixteen bytes that are equal for texts that differ in white space only."""
    return xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=8)
def permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd multipliers and offsets of the permutations: uint64 [count] each, the same in every run."""
    chance = np.random.Generator(np.random.PCG64(20_240_607))
    multipliers = chance.integers(0, 2**63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = chance.integers(0, 2**63, count, dtype=np.uint64)
    for one in (multipliers, offsets):
        one.flags.writeable = False
    return multipliers, offsets


def signature(word_hashes: np.ndarray, settings: Duplicates) -> np.ndarray:
    """The MinHash signature of a document: uint32 [bands * rows]; a document shorter than a shingle is one shingle.

    `word_hashes` is uint64 [words], in the order of the text. A document without words has a signature of its own kind: all places full.
    """
    from data_pipeline.web.duplicates.loops import least_multiply_shift

    shingles = ngram_hashes(word_hashes, min(settings.shingle_words, max(len(word_hashes), 1)))
    multipliers, offsets = permutations(settings.bands * settings.rows)
    least = np.full(len(multipliers), 0xFFFFFFFF, np.uint32)
    least_multiply_shift(shingles, multipliers, offsets, least)
    return least


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The estimated Jaccard similarity: the share of equal places."""
    return float((one == other).mean())


def collision_probability(jaccard: float, settings: Duplicates) -> float:
    """How probably two documents of this Jaccard similarity agree in a whole band: 1 - (1 - s**rows)**bands (Leskovec et al., 3.4.2)."""
    return 1.0 - (1.0 - jaccard**settings.rows) ** settings.bands


def needed_places(settings: Duplicates) -> int:
    """The fewest equal places whose share is the threshold or more."""
    places = settings.bands * settings.rows
    return next(count for count in range(places + 1) if count / places >= settings.threshold)
