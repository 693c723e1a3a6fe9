"""Measured values against values worked out by hand, and the rules that compare them."""

import numpy as np
import pytest

from data_pipeline.web.measures import duplicate_ngrams, duplicate_share, measure, ngram_hashes, top_ngram, word_hashes
from data_pipeline.web.recipe import Thresholds, WebRecipe
from data_pipeline.web.rules import TABLE, Maximum, Minimum, Rejection, first_rejection, rules_of


def arrays(text: str) -> tuple[np.ndarray, np.ndarray]:
    words = text.split()
    return word_hashes(words), np.array([len(word) for word in words])


def test_counts_by_hand() -> None:
    values, hashes = measure("The cat sat, and the dog #ran...\n- Be quick!\n\nx2 { } 44\n", link_density=0.25)
    # the cat sat and the dog ran be quick x2 44
    assert values.words == len(hashes) == 11
    assert values.mean_word_length == pytest.approx((3 + 3 + 3 + 3 + 3 + 3 + 3 + 2 + 5 + 2 + 2) / 11)
    assert values.symbol_ratio == pytest.approx(1 / 11)  # one hash mark, one ellipsis: the larger count
    assert values.alphabetic_words == pytest.approx(10 / 11)
    assert values.stop_words == 3  # the, and, be
    assert values.bullet_lines == pytest.approx(1 / 3)
    assert values.ellipsis_lines == pytest.approx(1 / 3)
    assert values.line_ends == pytest.approx(2 / 3)
    assert values.short_lines == pytest.approx(2 / 3)  # the first line has 32 characters
    assert values.newline_ratio == pytest.approx(4 / 11)
    assert (values.braces, values.lorem_ipsum, values.link_density) == (2, 0, 0.25)


def test_duplicate_lines_count_all_but_the_first() -> None:
    assert duplicate_share(["ab", "c", "ab", "ab"], by_characters=False) == 2 / 4
    assert duplicate_share(["ab", "c", "ab", "ab"], by_characters=True) == 4 / 7
    assert duplicate_share([], by_characters=True) == 0.0


def test_top_ngram() -> None:
    assert top_ngram(*arrays("a bb a bb ccc"), 2) == pytest.approx(2 * 3 / 9)  # "a bb" twice, three characters each
    assert top_ngram(*arrays("a b c d"), 2) == 0.0  # nothing comes twice
    assert top_ngram(*arrays("a"), 2) == 0.0


def test_repeated_ngrams_do_not_count_a_character_twice() -> None:
    # "a b c" again at words 3..5 and, overlapping, the run goes on: words 3 to 6 are covered
    assert duplicate_ngrams(*arrays("a b c a b c a zz"), 3) == pytest.approx(4 / 9)
    assert duplicate_ngrams(*arrays("a b c d e f"), 3) == 0.0


def test_ngram_hashes_depend_on_order_and_nothing_else() -> None:
    one, other = word_hashes(["a", "b", "c"]), word_hashes(["b", "a", "c"])
    assert ngram_hashes(one, 3) != ngram_hashes(other, 3)
    assert ngram_hashes(word_hashes(["x", "a", "b", "c"]), 3)[1] == ngram_hashes(one, 3)[0]
    assert len(ngram_hashes(one, 4)) == 0


def test_an_empty_text_measures_zero() -> None:
    values, hashes = measure("")
    assert values.words == 0
    assert values.duplicate_5grams == values.line_ends == 0.0
    assert len(hashes) == 0


def test_a_rule_says_reason_measure_value_and_threshold() -> None:
    values, _ = measure("one two three")
    assert Minimum("too_short", "words", 5).reject(values) == Rejection("too_short", "words", 3.0, 5.0)
    assert Minimum("too_short", "words", 3).reject(values) is None  # the threshold itself passes
    assert Maximum("too_long", "words", 2).reject(values) == Rejection("too_long", "words", 3.0, 2.0)
    assert Maximum("too_long", "words", 3).reject(values) is None


def test_every_threshold_has_a_rule() -> None:
    assert {setting for *_, setting in TABLE} == set(Thresholds.model_fields)


def test_the_brace_rule_can_be_switched_off() -> None:
    prose = "The miller and the baker have to be at the market with bread that people want. " * 2
    other = "Our boats leave early, of course, when swallows sing and every lamp goes out near the harbour wall. "
    text = (
        prose[:80]
        + other
        + "They ask { why } and nobody answers, so the children draw a map of that valley with chalk. They play. "
        + ("Later the engineer explains how the tower clock is wound and which wheels can bear the load of ten stones.")
    )
    values, _ = measure(text)
    assert first_rejection(rules_of(WebRecipe(c4_braces=False)), values) is None
    refusal = first_rejection(rules_of(WebRecipe()), values)
    assert refusal is not None
    assert (refusal.reason, refusal.value) == ("braces", 2.0)
