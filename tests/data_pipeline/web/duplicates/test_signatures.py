"""MinHash against exact Jaccard similarity, the collision curve in closed form, and interchange signatures against big integers."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import xxhash

from data_pipeline.errors import InputError
from data_pipeline.web.duplicates import Duplicates, clusters, exact_originals, exact_originals_of, signature, similarity, text_key
from data_pipeline.web.duplicates.interchange import interchange_signature, write_interchange
from data_pipeline.web.duplicates.signatures import collision_probability, needed_places, permutations
from data_pipeline.web.measures import hashes_of, ngram_hashes

SETTINGS = Duplicates()


def word_hashes(words: list[str]) -> np.ndarray:
    return hashes_of(" ".join(words))


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
    many = [text_key(str(number % 37 * number)) for number in range(500)]
    table = np.frombuffer(b"".join(many), np.uint8).reshape(-1, 16)
    assert exact_originals_of(table).tolist() == exact_originals(many) != list(range(500))
    assert exact_originals_of(table[:0]).tolist() == []


def test_a_signature_is_its_definition() -> None:
    hashes = word_hashes(words_of(5, 60) + words_of(5, 60))  # shingles that come twice change nothing
    a, b = permutations(112)
    shingles = [int(one) for one in ngram_hashes(hashes, 5)]
    expected = [min(((h * int(x) + int(y)) % 2**64) >> 32 for h in shingles) for x, y in zip(a, b, strict=True)]
    assert signature(hashes, SETTINGS).tolist() == expected


def test_the_share_of_found_pairs_follows_the_closed_form() -> None:
    """Sets of 64-bit numbers with a known Jaccard similarity, one word per shingle; each share within 4 standard errors of the curve."""
    settings, chance, pairs = Duplicates(shingle_words=1), np.random.default_rng(11), 400

    def worst(rows: int) -> float:
        expected_of = settings.model_copy(update={"rows": rows})
        return max(abs(share - collision_probability(jaccard, expected_of)) / max(error, 1e-3) for jaccard, share, error in measured)

    measured = []
    for shared, own in ((100, 50), (120, 30), (140, 20), (180, 10)):  # Jaccard 0.5, 0.667, 0.778, 0.9
        found = 0
        for _ in range(pairs):
            words = chance.integers(0, 2**63, shared + 2 * own, dtype=np.uint64)
            one, other = (
                signature(each, settings).reshape(14, 8) for each in (words[:-own], np.delete(words, slice(shared, shared + own)))
            )
            found += bool((one == other).all(axis=1).any())
        jaccard = shared / (shared + 2 * own)
        expected = collision_probability(jaccard, settings)
        measured.append((jaccard, found / pairs, (expected * (1 - expected) / pairs) ** 0.5))
    assert worst(8) < 4
    assert worst(7) > 4  # the curve of one row fewer is told apart


def test_the_fewest_places_of_a_threshold() -> None:
    for threshold in (0.5, 0.7, 0.75, 1.0, 1 / 112):
        settings = Duplicates(threshold=threshold)
        one = np.zeros(112, np.uint32)
        for equal in (needed_places(settings) - 1, needed_places(settings)):
            other = np.r_[np.zeros(equal, np.uint32), np.ones(112 - equal, np.uint32)]
            assert (similarity(one, other) >= threshold) == (equal == needed_places(settings))


@pytest.mark.parametrize(("hash", "precision"), [("xxhash", 64), ("xxhash", 32), ("sha1", 64), ("sha1", 32)])
def test_interchange_signatures_are_their_definition(hash: str, precision: int, tmp_path: Path) -> None:
    settings, words = Duplicates(bands=3, rows=2, shingle_words=3), words_of(1, 40)
    chance = np.random.RandomState(7)
    a = chance.randint(1, 2**61 - 1, dtype=np.uint64, size=(1, 6))[0].tolist()
    b = chance.randint(0, 2**61 - 1, dtype=np.uint64, size=(1, 6))[0].tolist()
    grams = [" ".join(gram).encode() for gram in zip(words, words[1:], words[2:], strict=False)]
    if hash == "sha1":
        hashes = [int.from_bytes(hashlib.sha1(gram).digest()[: precision // 8], "little") for gram in grams]
    else:
        hashes = [(xxhash.xxh64 if precision == 64 else xxhash.xxh32)(gram).intdigest() for gram in grams]
    expected = [min(((h * x + y) % 2**64 % (2**61 - 1)) & (2**precision - 1) for h in hashes) for x, y in zip(a, b, strict=True)]
    found = interchange_signature(words, settings, hash, precision, seed=7)  # type: ignore[arg-type]
    assert found is not None
    assert found.tolist() == expected
    assert interchange_signature(words[:2], settings) is None
    other = found[::-1].copy()
    paths = write_interchange(tmp_path, np.stack([found, other]), np.array([4, 9]), settings)
    size = precision // 8 * 2
    raw = paths[0].read_bytes()
    records = [raw[place : place + size + 4] for place in range(0, len(raw), size + 4)]
    rows = sorted([(expected[:2], 4), (expected[:-3:-1], 9)])
    numbers = [[int.from_bytes(one[at : at + precision // 8], "little") for at in (0, precision // 8)] for one in records]
    assert [(row, int.from_bytes(one[size:], "little")) for row, one in zip(numbers, records, strict=True)] == rows


def test_a_table_of_another_width_is_refused() -> None:
    for wrong in (np.zeros((2, 111), np.uint32), np.zeros((2, 112), np.uint64), np.zeros(112, np.uint32)):
        with pytest.raises(InputError, match="signatures: uint32"):
            clusters(wrong, SETTINGS)
