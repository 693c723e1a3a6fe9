"""MinHash against exact Jaccard similarity, and clusters that a wrong threshold would miss."""

import random

import numpy as np

from data_pipeline.web.duplicates import clusters, exact_originals, signature, similarity, text_key
from data_pipeline.web.measures import ngram_hashes, word_hashes
from data_pipeline.web.recipe import Duplicates

SETTINGS = Duplicates()


def words_of(seed: int, count: int = 400) -> list[str]:
    chance = random.Random(seed)
    return [f"w{chance.randrange(3000)}" for _ in range(count)]


def changed(words: list[str], places: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    other = list(words)
    for place in chance.sample(range(len(words)), places):
        other[place] = f"new{chance.randrange(10_000)}"
    return other


def exact_jaccard(one: list[str], other: list[str]) -> float:
    first, second = (set(zip(*(words[start:] for start in range(5)), strict=False)) for words in (one, other))
    return len(first & second) / len(first | second)


def test_the_estimate_is_near_the_exact_similarity() -> None:
    wide = Duplicates(bands=64, rows=16)  # 1,024 places: a standard error of at most 0.016
    for places in (0, 4, 12, 30, 80):
        one = words_of(places)
        other = changed(one, places, 1)
        estimate = similarity(signature(word_hashes(one), wide), signature(word_hashes(other), wide))
        assert abs(estimate - exact_jaccard(one, other)) < 0.06
    assert similarity(signature(word_hashes(words_of(1)), wide), signature(word_hashes(words_of(2)), wide)) < 0.02


def test_shingle_hashes_are_as_good_as_the_shingles() -> None:
    words = words_of(3, 5000)
    shingles = set(zip(*(words[start:] for start in range(5)), strict=False))
    assert len(np.unique(ngram_hashes(word_hashes(words), 5))) == len(shingles)


def test_clusters_find_planted_copies_and_nothing_else() -> None:
    originals = [words_of(seed) for seed in range(30)]
    copies = [changed(originals[seed], 5, seed) for seed in range(10)]
    documents = originals + copies
    signatures = np.stack([signature(word_hashes(one), SETTINGS) for one in documents])
    found = clusters(signatures, SETTINGS)
    assert found == [*range(30), *range(10)]  # each copy under its original, which is the earlier one
    assert clusters(signatures, Duplicates(threshold=1.0)) == list(range(40))  # the same test with a threshold that no copy reaches


def test_short_and_empty_documents() -> None:
    assert similarity(signature(word_hashes(["one"]), SETTINGS), signature(word_hashes(["one"]), SETTINGS)) == 1.0
    assert similarity(signature(word_hashes(["one"]), SETTINGS), signature(word_hashes(["two"]), SETTINGS)) < 0.1
    assert len(signature(word_hashes([]), SETTINGS)) == SETTINGS.bands * SETTINGS.rows
    assert clusters(np.empty((0, 112), np.uint32), SETTINGS) == []


def test_exact_duplicates_differ_in_white_space_only() -> None:
    keys = [text_key(text) for text in ("a b", "a  b\n", "a c", "a b")]
    assert exact_originals(keys) == [0, 0, 2, 0]
