"""Hashed n-grams: the compiled pass against the same definition in plain Python, and what must not matter."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from data_pipeline.quality.gram_names import named_grams, words_of
from data_pipeline.quality.grams import LANES, marks_of, sparse_rows, weighted_sums

CHARACTERS = "aAzZ09_ .,-éÉß×÷ÿ¿µ’—•漢字、ひﾊ한국Жж€😀𠀀Ω\n\t\ud800  "


def texts() -> list[str]:
    rng = random.Random(1)
    drawn = ["".join(rng.choice(CHARACTERS) for _ in range(rng.randrange(120))) for _ in range(150)]
    return [*drawn, "", "a" * 500, "a " * 400, " ", "😀", "é"]


def rows(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[dict[int, float]]:
    indptr, indices, values = found
    return [dict(zip(indices[begin:end].tolist(), values[begin:end].tolist(), strict=True)) for begin, end in itertools.pairwise(indptr)]


@pytest.mark.parametrize(("word_grams", "characters"), [(2, 0), (3, 4), (1, 0)])
def test_buckets_and_values_are_those_of_the_definition(word_grams: int, characters: int) -> None:
    for text, row in zip(texts(), rows(sparse_rows(texts(), 18, word_grams, characters)), strict=True):
        counts = Counter(bucket for bucket, _ in named_grams(text, 18, word_grams, characters))
        length = math.sqrt(sum((1 + math.log(count)) ** 2 for count in counts.values()))
        assert row.keys() == counts.keys()
        assert all(row[bucket] == pytest.approx((1 + math.log(count)) / length, rel=1e-6) for bucket, count in counts.items())


def test_weighted_sums_are_the_rows_times_the_weights() -> None:
    chance = np.random.default_rng(2)
    columns = np.flatnonzero(chance.random(2**18) < 0.4).astype(np.uint32)
    own = chance.normal(size=(len(columns), LANES)).astype(np.float32)
    sums = weighted_sums(texts(), 18, 2, 0, own, marks_of(columns, 18))
    weights = np.zeros((2**18, LANES), np.float32)
    weights[columns] = own
    for row, found in zip(rows(sparse_rows(texts(), 18, 2, 0)), sums, strict=True):
        assert found == pytest.approx(
            sum((value * weights[bucket].astype(float) for bucket, value in row.items()), np.zeros(LANES)), abs=1e-5
        )


def test_a_text_counts_the_same_wherever_it_stands() -> None:
    alone = [rows(sparse_rows([text], 18, 2, 0))[0] for text in texts()]
    assert rows(sparse_rows(texts(), 18, 2, 0)) == alone


def test_words() -> None:
    assert words_of("The ÉCOLE, in 1998: x_1 — don’t!") == [b"the", "école".encode(), b"in", b"0000", b"x_0", b"don", b"t"]
    assert words_of("漢字😀かな") == [one.encode() for one in "漢字😀かな"]


def test_capitals_digits_and_marks_do_not_matter_and_words_do() -> None:
    one, same, other = rows(sparse_rows(["In 1998, the Cat sat", "in 2024 the cat... SAT!", "in 1998 the dog sat"], 18, 2, 0))
    assert one == same
    assert one != other
