"""What one pass over a document measures: the values that every quality rule reads and the shingle hashes that duplicates are found by.

Rules apply thresholds to stored values, so a changed threshold needs no second look at the pages. Definitions follow Gopher
(arXiv:2112.11446, appendix A), C4 (arXiv:1910.10683, section 2.2) and FineWeb (arXiv:2406.17557); a word is a run of letters, digits and
underscores here, so that numbers and identifiers count as one word each.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import xxhash

WORD = re.compile(r"\w+", re.UNICODE)
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "▪", "◦", "-", "*", "–", "●")
ELLIPSES = ("...", "…")
LINE_ENDS = (".", "!", "?", '"', "'", "”", "’", ":", ";", ")", "。", "！", "？")
SHORT_LINE = 30
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd: the base of the polynomial hash


@dataclass(frozen=True)
class Values:
    """The measured values of one document; ratios are shares between 0 and 1 unless the name says otherwise."""

    words: int
    characters: int
    mean_word_length: float
    symbol_ratio: float  # hash marks or ellipses, whichever are more, per word
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float
    stop_words: int  # how many different ones
    duplicate_lines: float
    duplicate_line_characters: float
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    top_2gram: float
    top_3gram: float
    top_4gram: float
    duplicate_5grams: float
    duplicate_10grams: float
    line_ends: float
    short_lines: float
    newline_ratio: float  # line breaks per word
    braces: int
    lorem_ipsum: int
    link_density: float


def measure(text: str, link_density: float = 0.0) -> tuple[Values, np.ndarray]:
    """The values of a text and the 64-bit hash of each of its words, in order, lower case."""
    words = WORD.findall(text.lower())
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    hashes = word_hashes(words)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    count = max(len(words), 1)
    symbols = max(text.count("#"), sum(text.count(mark) for mark in ELLIPSES))
    lower = text.lower()
    values = Values(
        words=len(words),
        characters=len(text),
        mean_word_length=float(lengths.sum()) / count,
        symbol_ratio=symbols / count,
        bullet_lines=share(line.startswith(BULLETS) for line in lines),
        ellipsis_lines=share(line.endswith(ELLIPSES) for line in lines),
        alphabetic_words=share(any(map(str.isalpha, word)) for word in words),
        stop_words=len(STOP_WORDS.intersection(words)),
        duplicate_lines=duplicate_share(lines, by_characters=False),
        duplicate_line_characters=duplicate_share(lines, by_characters=True),
        duplicate_paragraphs=duplicate_share(paragraphs, by_characters=False),
        duplicate_paragraph_characters=duplicate_share(paragraphs, by_characters=True),
        top_2gram=top_ngram(hashes, lengths, 2),
        top_3gram=top_ngram(hashes, lengths, 3),
        top_4gram=top_ngram(hashes, lengths, 4),
        duplicate_5grams=duplicate_ngrams(hashes, lengths, 5),
        duplicate_10grams=duplicate_ngrams(hashes, lengths, 10),
        line_ends=share(line.endswith(LINE_ENDS) for line in lines),
        short_lines=share(len(line) <= SHORT_LINE for line in lines),
        newline_ratio=text.count("\n") / count,
        braces=text.count("{") + text.count("}"),
        lorem_ipsum=lower.count("lorem ipsum"),
        link_density=link_density,
    )
    return values, hashes


def share(marks) -> float:  # type: ignore[no-untyped-def]
    """The share of true values; 0 of none."""
    found = list(marks)
    return sum(found) / len(found) if found else 0.0


def word_hashes(words: list[str]) -> np.ndarray:
    """xxh3 of each word, each distinct word hashed once."""
    known = {word: xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) for word in set(words)}
    return np.fromiter((known[word] for word in words), np.uint64, len(words))


def duplicate_share(parts: list[str], by_characters: bool) -> float:
    """The share of parts (or of their characters) that stood on the page before: all occurrences but the first."""
    if not parts:
        return 0.0
    repeated = [(len(part), times - 1) for part, times in Counter(parts).items()]
    if by_characters:
        return sum(length * times for length, times in repeated) / sum(map(len, parts))
    return sum(times for _, times in repeated) / len(parts)


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """The polynomial hash of each n-gram of words, modulo 2**64: [words - n + 1]."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(n):
        total = total * ODD + hashes[place : place + count]
    return total ^ (total >> np.uint64(31))


def top_ngram(hashes: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """The share of the words' characters that the commonest n-gram covers, if it comes at least twice; occurrences count whole."""
    grams = ngram_hashes(hashes, n)
    if not len(grams):
        return 0.0
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    top = counts.max()
    if top < 2:
        return 0.0
    starts = np.concatenate([[0], np.cumsum(lengths)])
    widest = max(int(starts[place + n] - starts[place]) for place in first[counts == top])
    return min(1.0, widest * int(top) / max(int(starts[-1]), 1))


def duplicate_ngrams(hashes: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """The share of the words' characters that lie in an n-gram that stood on the page before; no character counts twice."""
    grams = ngram_hashes(hashes, n)
    if not len(grams):
        return 0.0
    first = np.zeros(len(grams), bool)
    first[np.unique(grams, return_index=True)[1]] = True
    covered = np.zeros(len(hashes), bool)
    repeated = np.flatnonzero(~first)
    for place in range(n):
        covered[repeated + place] = True
    return float(lengths[covered].sum()) / max(int(lengths.sum()), 1)
