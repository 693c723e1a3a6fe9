"""Counts of lines against a Counter, with memory so small that runs are merged; and what is taken out of a text."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.repeated_lines import LineCounter, LineRules, line_hashes, strip_repeated

RULES = LineRules(documents=3, words=2, scope="crawl")


def test_counts_are_exact_however_small_the_memory(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    documents = [np.unique((chance.pareto(1.0, 40) * 20).astype(np.uint64) * np.uint64(2**55 + 1)) for _ in range(1500)]
    documents[3] = np.empty(0, np.uint64)
    expected = Counter(one for document in documents for one in document.tolist())
    for memory in (1 << 14, 1 << 26):
        counter = LineCounter(tmp_path / "lines", memory)
        for document in documents:
            counter.add(document)
        assert memory > 1 << 20 or len(counter.runs) > 50
        frequent = counter.settle(5)
        assert not (tmp_path / "lines").exists()
        often = sorted(one for one, count in expected.items() if count >= 5)
        assert 0 < len(often) < len(expected)
        assert frequent.hashes.tolist() == often
        assert frequent.counts.tolist() == [expected[one] for one in often]
        assert frequent.first.tolist() == [next(place for place, document in enumerate(documents) if one in document) for one in often]


def frequent_in(texts: list[str], rules: LineRules, folder: Path, sites: list[str] | None = None):  # type: ignore[no-untyped-def]
    counter = LineCounter(folder / "lines")
    for place, text in enumerate(texts):
        counter.add(line_hashes(text, rules, sites[place] if sites else ""))
    return counter.settle(rules.documents)


def test_lines_of_three_documents_go(tmp_path: Path) -> None:
    texts = [f"Title {one}\n\nAll rights  reserved.\n\nBody of page {one}.\nShare on\nx" for one in "abc"] + [
        "All rights reserved.\nother page"
    ]
    frequent = frequent_in(texts, RULES, tmp_path)
    assert frequent.counts.tolist() in ([4, 3], [3, 4])
    for one, text in zip("abc", texts, strict=False):
        stripped, removed = strip_repeated(text, frequent.hashes, RULES)
        assert stripped == f"Title {one}\n\nBody of page {one}.\nx"
        assert removed == len(text) - len(stripped)
    assert strip_repeated(texts[3], frequent.hashes, RULES) == ("other page", 21)
    assert strip_repeated(texts[0], frequent.hashes, RULES, spared=frequent.spared(0)) == (texts[0], 0)
    assert strip_repeated(texts[1], frequent.hashes, RULES, spared=frequent.spared(1))[1] > 0
    assert strip_repeated(texts[0], frequent.hashes, RULES.model_copy(update={"words": 4}))[0] == texts[0]  # they have three words and two
    assert strip_repeated(texts[0], np.empty(0, np.uint64), RULES) == (texts[0], 0)
    assert len(frequent_in(texts, RULES.model_copy(update={"documents": 5}), tmp_path).hashes) == 0


def test_paragraphs_and_sites(tmp_path: Path) -> None:
    rules = RULES.model_copy(update={"unit": "paragraph"})
    texts = [f"One notice\nin two lines.\n\nPage {one} here.\n\nOne notice\nin two lines." for one in "abc"] + ["in two lines."]
    frequent = frequent_in(texts, rules, tmp_path)
    assert [strip_repeated(text, frequent.hashes, rules)[0] for text in texts] == ["Page a here.", "Page b here.", "Page c here.", texts[3]]
    per_site = RULES.model_copy(update={"scope": "site", "documents": 2})
    sites = ["a.org", "b.org", "a.org", "a.org"]
    texts = ["the same words", "the same words", "the same words", "other words"]
    frequent = frequent_in(texts, per_site, tmp_path, sites)
    assert [strip_repeated(text, frequent.hashes, per_site, site)[0] for text, site in zip(texts, sites, strict=True)] == [
        "", "the same words", "", "other words",
    ]  # fmt: skip


def test_the_first_document_of_a_line_is_told(tmp_path: Path) -> None:
    texts = ["one of these", "two of these", "two of these\none of these", "three of these", "three of these"]
    frequent = frequent_in(texts, RULES.model_copy(update={"documents": 2}), tmp_path)
    first = {document: frequent.spared(document) for document in range(5)}
    assert [len(first[document]) for document in range(5)] == [1, 1, 0, 1, 0]
    assert frozenset().union(*first.values()) == frozenset(frequent.hashes.tolist())


def test_off_by_default_and_wrong_calls(tmp_path: Path) -> None:
    assert LineRules().documents == 0
    with pytest.raises(ValueError, match="2 or more, or 0 for none"):  # before anything is measured
        LineRules(documents=1)
    with pytest.raises(InputError, match="2 or more make a line frequent"):
        LineCounter(tmp_path / "lines").settle(0)
    assert line_hashes("\n \n", RULES).tolist() == []
    assert len(LineCounter(tmp_path / "lines").settle(2).hashes) == 0
    assert line_hashes("a \ud800 b", RULES).dtype == np.uint64
