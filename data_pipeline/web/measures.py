"""What one pass over a document measures: the values that every quality rule reads and the word hashes that duplicates are found by.

Rules apply thresholds to stored values, so a changed threshold needs no second look at the pages. Definitions follow Gopher
(arXiv:2112.11446, appendix A), C4 (arXiv:1910.10683, section 2.2) and FineWeb (arXiv:2406.17557) as their public pipeline, datatrove,
counts them: a token is a word, number, address or mark as spaCy's English tokenizer splits them, and a word is a token that is not only
marks. The hashes are of other words, runs of letters and digits in lower case without accents, so that duplicates are found across
punctuation, case and accents.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from data_pipeline.web import text_pass

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
NO_WORDS = np.empty(0, np.int32)
NO_ROOM = np.empty((0, 2), np.int64)
C4_COUNTS = [text_pass.C4_LINES, text_pass.C4_SENTENCES, text_pass.C4_BRACES, text_pass.C4_LOREM]


@dataclass(frozen=True)
class Values:
    """The measured values of one document; ratios are shares between 0 and 1 unless the name says otherwise."""

    words: int  # tokens that are not only marks
    tokens: int
    characters: int
    mean_word_length: float
    symbol_ratio: float  # hash marks or ellipses, whichever are more, per token
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float  # tokens with a letter in them
    stop_words: int  # how many different ones
    duplicate_lines: float
    duplicate_line_characters: float
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    top_2gram: float
    top_3gram: float
    top_4gram: float
    duplicate_5grams: float
    duplicate_6grams: float
    duplicate_7grams: float
    duplicate_8grams: float
    duplicate_9grams: float
    duplicate_10grams: float
    line_ends: float
    short_lines: float
    repeated_line_characters: float  # per character outside line breaks
    newline_ratio: float  # line breaks per token
    sentences: int  # in the lines that C4 keeps
    c4_lines: int  # how many lines C4 keeps
    braces: int  # lines with an opening brace that C4 would keep otherwise
    lorem_ipsum: int  # the same with placeholder text
    link_density: float


@cache
def tables() -> tuple[np.ndarray, ...]:
    """What the compiled pass reads beside the text: classes, folded letters, exceptions and stop words."""
    from data_pipeline.web.characters import class_table, fold_table
    from data_pipeline.web.word_exceptions import exception_table

    keys, pieces = exception_table()
    stops = np.array([int.from_bytes(word.encode(), "big") for word in STOP_WORDS], np.int64)
    return class_table(), fold_table(), keys, pieces, stops


def points_of(text: str) -> np.ndarray:
    """The code points of a text, lone surrogates too: uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def measure(text: str, link_density: float = 0.0) -> tuple[Values, np.ndarray]:
    """The values of a text, and the 64-bit hash of each of its runs of letters and digits in order, lower case, without accents."""
    classes, fold, keys, pieces, stops = tables()
    points = points_of(text)
    counts = np.zeros(text_pass.COUNTS, np.int64)
    bounds = text_pass.tokens_of(points, classes, keys, pieces)
    hashes, flags = text_pass.facts_of(points, classes, bounds, stops, counts)
    line_words = text_pass.lines_of(points, classes, bounds, flags, NO_WORDS, counts, NO_ROOM)
    if "[" in text and CITATION.search(text):
        counts[C4_COUNTS] = without_citations(text, line_words, NO_ROOM)[1][C4_COUNTS]
    text_pass.parts_of(points, classes, counts)
    text_pass.grams_of(hashes, bounds, counts)
    return values_of(counts.tolist(), len(text), link_density), text_pass.folded_words(points, classes, fold)


def without_citations(text: str, line_words: np.ndarray, kept: np.ndarray) -> tuple[str, np.ndarray]:
    """The text with stripped lines and without citations, and C4's counts of it; `line_words` are those of the text's lines before."""
    classes, _, keys, pieces, stops = tables()
    text = "\n".join(CITATION.sub("", line.strip()) for line in text.splitlines())
    points, counts = points_of(text), np.zeros(text_pass.COUNTS, np.int64)
    bounds = text_pass.tokens_of(points, classes, keys, pieces)
    _, flags = text_pass.facts_of(points, classes, bounds, stops, counts)
    counts[:] = 0
    text_pass.lines_of(points, classes, bounds, flags, line_words, counts, kept)
    return text, counts


def c4_clean(text: str, sentences: int = 5, braces: bool = True, lorem_ipsum: bool = True) -> str | None:
    """The lines that C4 keeps, without citations; None where C4 drops the page: too few sentences, a brace or placeholder text."""
    classes, _, keys, pieces, stops = tables()
    points, counts = points_of(text), np.zeros(text_pass.COUNTS, np.int64)
    bounds = text_pass.tokens_of(points, classes, keys, pieces)
    _, flags = text_pass.facts_of(points, classes, bounds, stops, counts)
    kept = np.empty((len(text.splitlines()), 2), np.int64)
    line_words = text_pass.lines_of(points, classes, bounds, flags, NO_WORDS, counts, kept)
    if CITATION.search(text):
        text, counts = without_citations(text, line_words, kept)
    if counts[text_pass.C4_SENTENCES] < sentences:
        return None
    if (braces and counts[text_pass.C4_BRACES]) or (lorem_ipsum and counts[text_pass.C4_LOREM]):
        return None
    return "\n".join(text[first:last] for first, last in kept[: counts[text_pass.C4_LINES]].tolist()).strip()


def values_of(counts: list[int], characters: int, link_density: float) -> Values:
    """Shares from counts; a share of nothing is 0."""
    tokens, lines = max(counts[text_pass.TOKENS], 1), max(counts[text_pass.LINES], 1)
    size, text_lines = max(characters, 1), max(counts[text_pass.TEXT_LINES], 1)
    repeated = [count / size for count in counts[text_pass.REPEATED_5 :]]
    return Values(
        words=counts[text_pass.WORDS],
        tokens=counts[text_pass.TOKENS],
        characters=characters,
        mean_word_length=counts[text_pass.WORD_CHARACTERS] / max(counts[text_pass.WORDS], 1),
        symbol_ratio=max(counts[text_pass.HASHES], counts[text_pass.ELLIPSES]) / tokens,
        bullet_lines=counts[text_pass.BULLET_LINES] / lines,
        ellipsis_lines=counts[text_pass.ELLIPSIS_LINES] / lines,
        alphabetic_words=counts[text_pass.LETTER_WORDS] / tokens,
        stop_words=counts[text_pass.STOP_WORDS].bit_count(),
        duplicate_lines=counts[text_pass.REPEATED_PARTS] / max(counts[text_pass.PARTS], 1),
        duplicate_line_characters=counts[text_pass.REPEATED_PART_CHARACTERS] / size,
        duplicate_paragraphs=counts[text_pass.REPEATED_PARAGRAPHS] / max(counts[text_pass.PARAGRAPHS], 1),
        duplicate_paragraph_characters=counts[text_pass.REPEATED_PARAGRAPH_CHARACTERS] / size,
        top_2gram=counts[text_pass.TOP_2] / size,
        top_3gram=counts[text_pass.TOP_3] / size,
        top_4gram=counts[text_pass.TOP_4] / size,
        duplicate_5grams=repeated[0],
        duplicate_6grams=repeated[1],
        duplicate_7grams=repeated[2],
        duplicate_8grams=repeated[3],
        duplicate_9grams=repeated[4],
        duplicate_10grams=repeated[5],
        line_ends=counts[text_pass.ENDED_LINES] / text_lines,
        short_lines=counts[text_pass.SHORT_LINES] / text_lines,
        repeated_line_characters=counts[text_pass.REPEATED_LINE_CHARACTERS] / max(characters - counts[text_pass.NEWLINES], 1),
        newline_ratio=counts[text_pass.NEWLINES] / tokens,
        sentences=counts[text_pass.C4_SENTENCES],
        c4_lines=counts[text_pass.C4_LINES],
        braces=counts[text_pass.C4_BRACES],
        lorem_ipsum=counts[text_pass.C4_LOREM],
        link_density=link_density,
    )


def word_hashes(words: list[str]) -> np.ndarray:
    """The hash that `measure` gives each of these words: uint64 [words] where each word is one run of letters and digits."""
    return hashes_of("\n".join(words))


def hashes_of(text: str) -> np.ndarray:
    """The hashes of `measure` alone, without its values."""
    classes, fold, *_ = tables()
    return text_pass.folded_words(points_of(text), classes, fold)


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """The polynomial hash of each n-gram of words, modulo 2**64: [words - n + 1]."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(n):
        total = total * text_pass.STEP + hashes[place : place + count]
    return total ^ (total >> np.uint64(31))
