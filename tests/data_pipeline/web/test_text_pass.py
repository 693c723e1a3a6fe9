"""The compiled pass against plain Python on texts of all kinds, and its tokens against cases worked out by hand."""

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipeline.web import text_pass
from data_pipeline.web.measures import c4_clean, hashes_of, measure, points_of, tables, word_hashes
from data_pipeline.web.word_exceptions import exceptions
from tests.data_pipeline.web.plain_rules import c4, plain_values, plain_words, tokens

PIECES = (
    "don't Don’t cannot I'd've it's U.S. e.g. Mr. a.m. 10am 8pm o'clock http://a-b.example/x?y=1 me@mail.example www.site.org:80 .. "
    "... …… ( ) "
    "[ ] \" ' ” “ ‘ , : ; ! ? . 's ’S 5% 10km 3.5m² $5 US$7 9€ +1 -5°C. x+y 3+4 3-4 a-b a--b a—b x/y a=b a,b end.Next :) :-) (8) ;) "
    "#tag # * "
    "• - – the be to of and that have with The word Word words JavaScript lorem ipsum { } 1 [1] [] [edit] terms use cookies privacy policy "
    "1,000. ÉTÉ é e\u0301 ß İ 中文 。 ！ 😀 ► ८ １ ½ º Ќ \ud800 \x00 \x07 ¬ | \\ @ ~ ^ _ `"
)
BLANKS = [" "] * 12 + ["", "", "\n", "\n\n", "\n \n", "\r\n", "\r", "\t", "  ", "\u2028", "\x0b", "\xa0", "\x1c", "."]


@st.composite
def texts(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.sampled_from(PIECES.split(" ")) | st.text(max_size=4), max_size=60))
    text = "".join(word + draw(st.sampled_from(BLANKS)) for word in words)
    return text + text[: draw(st.integers(0, len(text)))] * draw(st.integers(0, 2))  # so that lines and n-grams come again


def our_tokens(text: str) -> list[str]:
    classes, _, keys, pieces, _ = tables()
    return [text[start:end] for start, end in text_pass.tokens_of(points_of(text), classes, keys, pieces).tolist()]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(texts())
@example("")
@example("\n")
@example("\x00" * 5 + "\n\x00")
@example("\ud800 \udfff.")
@example('We use it. [1]\nThey say so [2] here. Yes!\n[3] Ok they go.\n  Two  blanks.  Here " now.\n')
def test_the_pass_equals_plain_python(text: str) -> None:
    values, hashes = measure(text)
    assert our_tokens(text) == tokens(text)
    assert dataclasses.asdict(values) == dataclasses.asdict(plain_values(text))
    words = plain_words(text)
    assert len(hashes) == len(words)
    assert len(set(hashes.tolist())) == len(set(words))
    assert (hashes_of("\n".join(words)) == hashes).all()
    kept, total, braces, lorem = c4(text)
    assert c4_clean(text) == (None if total < 5 or braces or lorem else "\n".join(kept).strip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(don't!)", ["(", "do", "n't", "!", ")"]),
        ("They’ll can't've cannot", ["They", "’ll", "ca", "n't", "'ve", "can", "not"]),
        ("Mr. Fox, e.g. here, U.S. etc.", ["Mr.", "Fox", ",", "e.g.", "here", ",", "U.S.", "etc", "."]),
        ("see https://a.example/b,c, or me@b.example.", ["see", "https://a.example/b,c", ",", "or", "me@b.example", "."]),
        ("well-known x/y 3-4 a=b end.Next", ["well", "-", "known", "x", "/", "y", "3", "-", "4", "a", "=", "b", "end", ".", "Next"]),
        ("10km 50% $5 9am 5-8pm", ["10", "km", "50", "%", "$", "5", "9", "am", "5", "-", "8pm"]),
        ("so:) wait... no....", ["so", ":)", "wait", "...", "no", "...."]),
    ],
)
def test_tokens_by_hand(text: str, expected: list[str]) -> None:
    assert our_tokens(text) == expected == tokens(text)


def test_the_comparison_can_fail() -> None:
    """The reference without its contractions, and a text with one letter changed, differ from the pass."""
    text = "They don't know, and we can't tell. " * 3
    without = {word: pieces for word, pieces in exceptions().items() if len(pieces) == 1}
    assert our_tokens(text) != tokens(text, without)
    assert measure(text)[0] != plain_values(text.replace("know", "knew ", 1))


def test_very_large_texts() -> None:
    word = "ab" * 500_000
    values, hashes = measure(word)
    assert (values.words, values.mean_word_length, values.c4_lines, len(hashes)) == (1, 1_000_000.0, 0, 1)
    for mark in (".", ")", "-", "'", "#", "@", "a://", "a@", "'s"):  # every rule of the splitter in a run of a million characters
        values, _ = measure(mark * (1_000_000 // len(mark)))
        assert values.characters >= 999_999
    line = " ".join(f"w{number}" for number in range(100_000))
    values, hashes = measure(line)
    assert values.tokens == values.words == len(hashes) == len(set(hashes.tolist())) == 100_000
    assert values.duplicate_5grams == 0.0


def test_repeated_ngrams_of_a_period_are_a_closed_form() -> None:
    """w0 w1 ... w19 a hundred times over: behind the first round n tokens at a time are covered, until less than n are left."""
    names = [f"w{number:02d}" for number in range(20)]
    text = " ".join(names * 100)
    values, _ = measure(text)
    for n in range(5, 11):
        covered = (2000 - 20) // n * n
        assert getattr(values, f"duplicate_{n}grams") == pytest.approx(covered * 3 / len(text))
    assert values.top_2gram == pytest.approx(100 * 7 / len(text))
    assert values.top_4gram == pytest.approx(100 * 15 / len(text))


def test_hashes_do_not_depend_on_marks_case_or_accents() -> None:
    plain = measure("the cafe was well known and the boats left early")[1]
    assert (measure("The CAFÉ -- was “well-known”;\nand, the *boats* left (early)!")[1] == plain).all()
    assert (word_hashes(["the", "cafe", "was", "well", "known", "and", "the", "boats", "left", "early"]) == plain).all()
    assert (measure("cafe\u0301")[1] == word_hashes(["cafe"])).all()
    assert len({*word_hashes(["한", "하", "ab", "ba", "a", "b", "0", "1"]).tolist()}) == 8
