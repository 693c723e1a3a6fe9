"""Measured values against values worked out by hand, and the rules that compare them."""

import pytest

from data_pipeline.web.measures import c4_clean, measure, ngram_hashes, word_hashes
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import TABLE, Maximum, Minimum, Rejection, first_rejection, rules_of
from data_pipeline.web.thresholds import Thresholds


def test_counts_by_hand() -> None:
    values, hashes = measure("The cat sat, and the dog #ran...\n- Be quick!\n\nx2 { } 44\n", link_density=0.25)
    # The cat sat , and the dog # ran ... - Be quick ! x2 { } 44: of 18 tokens 11 are words, of which 10 have a letter
    assert values.words == len(hashes) == 11
    assert values.tokens == 18
    assert values.mean_word_length == pytest.approx((3 + 3 + 3 + 3 + 3 + 3 + 3 + 2 + 5 + 2 + 2) / 11)
    assert values.symbol_ratio == pytest.approx(1 / 18)  # one hash mark, one ellipsis: the larger count
    assert values.alphabetic_words == pytest.approx(10 / 18)
    assert values.stop_words == 2  # the, and; capital letters do not count
    assert values.bullet_lines == pytest.approx(1 / 4)  # of all lines, the empty one too
    assert values.ellipsis_lines == pytest.approx(1 / 4)
    assert values.line_ends == pytest.approx(2 / 3)
    assert values.short_lines == pytest.approx(2 / 3)  # the first line has 32 characters
    assert values.newline_ratio == pytest.approx(4 / 18)
    assert (values.braces, values.lorem_ipsum, values.link_density) == (0, 0, 0.25)  # the line with braces ends in no mark


def test_duplicate_lines_count_all_but_the_first() -> None:
    values, _ = measure("ab\nc\nab\n\nab")
    assert values.duplicate_lines == 2 / 4
    assert values.duplicate_line_characters == 4 / 11
    assert values.repeated_line_characters == 4 / 7
    assert values.duplicate_paragraphs == 0.0
    assert measure("ab\nc\n\nd\n\n\nab\nc")[0].duplicate_paragraph_characters == 4 / 14


def test_top_ngram() -> None:
    assert measure("a bb a bb ccc")[0].top_2gram == pytest.approx(2 * 4 / 13)  # "a bb" twice, four characters each
    assert measure("a b c d")[0].top_2gram == pytest.approx(3 / 7)  # nothing comes twice: the first counts
    assert measure("a")[0].top_2gram == 0.0


def test_repeated_ngrams_do_not_count_a_character_twice() -> None:
    assert measure("a b c d e a b c d e a b zz")[0].duplicate_5grams == pytest.approx(5 / 26)
    assert measure("a b c d e f a b c d")[0].duplicate_5grams == 0.0


def test_c4_keeps_lines_that_are_sentences() -> None:
    good = "The first is here. The second too! Is the third?"
    others = ["Menu and more", "Short.", "Turn on JavaScript now please.", "Read our privacy policy here.", "Wait for it..."]
    text = "\n".join([good, *others[:3], 'It is [1] so [edit] "as said." Yes.', *others[3:]])
    assert c4_clean(text) == f'{good}\nIt is  so  "as said." Yes.'
    values, _ = measure(text)
    assert (values.c4_lines, values.sentences) == (2, 5)
    assert c4_clean(good) is None  # three sentences
    assert c4_clean(text + "\nThey use { and so on.") is None
    assert c4_clean(text + "\nThey use { and so on.", braces=False) is not None
    assert c4_clean(text + "\nAnd Lorem ipsum stands here.") is None


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
    assert (refusal.reason, refusal.value) == ("braces", 1.0)  # one line
