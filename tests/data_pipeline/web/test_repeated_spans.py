"""Repeated runs of words against a search through all earlier documents; what is taken out of a text."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.repeated_spans import SpanFinder, strip_spans, winnow, words_of

LONG = 12


def crawl(seed: int) -> list[np.ndarray]:
    """Documents of rare words into which runs of the first twenty are copied, some of them too short, some twice."""
    chance = np.random.default_rng(seed)
    documents = [chance.integers(0, 2**63, size, dtype=np.uint64) for size in chance.integers(0, 120, 20)]
    for _ in range(60):
        parts = [chance.integers(0, 2**63, chance.integers(0, 30), dtype=np.uint64)]
        for _ in range(chance.integers(0, 4)):
            source = documents[chance.integers(20)]
            start = int(chance.integers(0, max(len(source), 1)))
            parts += [
                source[start : start + int(chance.integers(5, 60))],
                chance.integers(0, 2**63, chance.integers(1, 20), dtype=np.uint64),
            ]
        documents.append(np.concatenate(parts))
    return [*documents, documents[3], np.concatenate([documents[0], documents[0]])]


def covered_by_search(documents: list[np.ndarray]) -> list[set[int]]:
    """For each document the places of words that lie in a run of LONG words which an earlier document has."""
    known: set[bytes] = set()
    result = []
    for words in documents:
        runs = [words[start : start + LONG].tobytes() for start in range(len(words) - LONG + 1)]
        result.append({place for start, run in enumerate(runs) if run in known for place in range(start, start + LONG)})
        known.update(runs)
    return result


def test_found_are_all_runs_that_an_earlier_document_has(tmp_path: Path) -> None:
    documents = crawl(1)
    expected = covered_by_search(documents)
    assert sum(map(len, expected)) > 1000
    answers = []
    for memory in (1 << 16, 1 << 26):
        finder = SpanFinder(tmp_path / "spans", LONG, memory)
        for words in documents:
            finder.add(words)
        found = dict(finder.settle())
        assert not (tmp_path / "spans").exists()
        assert memory > 1 << 20 or len(finder.runs) > 1
        for document, places in enumerate(expected):
            spans = found.get(document, np.empty((0, 4), np.int64))
            assert {place for start, stop, _, _ in spans for place in range(start, stop)} == places
            for start, stop, other, at in spans:
                assert other < document
                assert stop - start >= LONG
                assert documents[document][start:stop].tolist() == documents[other][at : at + stop - start].tolist()
        answers.append({document: spans.tolist() for document, spans in found.items()})
    assert answers[0] == answers[1]


def test_samples_are_the_least_of_every_window() -> None:
    words = np.random.default_rng(2).integers(0, 5, 400).astype(np.uint64)  # few words: equal windows
    marks, places = np.empty(400, np.uint64), np.empty(400, np.int64)
    count = winnow(words, 3, 8, marks, places)
    chosen = set(places[:count].tolist())
    assert len(chosen) == count < 200
    assert all(any(place in chosen for place in range(start, start + 8)) for start in range(400 - 3 - 8 + 2))
    by_window: dict[tuple[int, ...], set[int]] = {}
    for mark, place in zip(marks[:count].tolist(), places[:count].tolist(), strict=True):
        by_window.setdefault(tuple(words[place : place + 3].tolist()), set()).add(mark)
    assert all(len(hashes) == 1 for hashes in by_window.values())  # a hash is a function of its words
    assert winnow(words[:9], 3, 8, marks, places) == 0


def test_what_is_taken_out_of_a_text() -> None:
    text = "One, two three. Four five!\nSix: seven eight."
    assert len(words_of(text)) == 8
    assert words_of("Two TWO two").tolist() == words_of("two").tolist() * 3
    assert strip_spans(text, np.array([[1, 3]])) == ("One, Four five!\nSix: seven eight.", 11)
    assert strip_spans(text, np.array([[3, 5]])) == ("One, two three. \nSix: seven eight.", 10)
    assert strip_spans(text, np.array([[4, 8], [0, 2], [1, 3]]))[0] == "Four "  # overlapping, in any order
    assert strip_spans(text, np.array([[0, 8]]))[0] == ""
    assert strip_spans(text, np.empty((0, 4), np.int64)) == (text, 0)


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 or more are needed"):
        SpanFinder(tmp_path / "spans", 3)
    assert list(SpanFinder(tmp_path / "spans").settle()) == []
