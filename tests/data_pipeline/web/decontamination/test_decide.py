"""Items planted in pages are found by their n-grams, common language is not; the compiled table against plain Python sets."""

import random

import numpy as np
import pytest

from data_pipeline.benchmark_items import Item
from data_pipeline.errors import InputError
from data_pipeline.web.decontamination.decide import decide, document_frequencies
from data_pipeline.web.decontamination.index import NO_HITS, BenchmarkIndex, Hits
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.measures import measure

DRAW = random.Random(3)
SETTINGS = Decontamination()


def words(count: int) -> str:
    """Words that no other text has."""
    return " ".join("".join(DRAW.choice("abcdefghij") for _ in range(9)) for _ in range(count))


def item(number: int, question: str, answer: str = "", task: str = "t") -> Item:
    return Item(task=task, split="test", id=str(number), question=question, answer=answer)


def pages_of(index: BenchmarkIndex, texts: list[str]) -> list[Hits]:
    return [index.match(measure(text)[1]) for text in texts]


def test_matches_are_those_of_plain_sets() -> None:
    """Few different words, so that n-grams come again and again."""
    draw = random.Random(5)

    def text(count: int) -> str:
        return " ".join(draw.choice("ab") for _ in range(count))

    items = [item(number, text(draw.randrange(4, 60)), text(draw.randrange(0, 5)), task=f"t{number % 3}") for number in range(120)]
    index = BenchmarkIndex.of(items, Decontamination(words=11, coverage_words=6, max_item_frequency=6))

    def grams(words: list[str], n: int) -> set[str]:
        return {" ".join(words[place : place + n]) for place in range(len(words) - n + 1)}

    owned: dict[str, set[int]] = {}
    for number, one in enumerate(items):
        for n in (6, 11):
            for gram in grams(f"{one.question} {one.answer}".split(), n):
                owned.setdefault(gram, set()).add(number)
    by_task = {gram: [[one for one in owners if one % 3 == task] for task in range(3)] for gram, owners in owned.items()}
    kept = {gram: {one for part in parts if len(part) <= 6 for one in part} for gram, parts in by_task.items()}
    assert len(index.keys) == len(owned)
    assert any(not owners for owners in kept.values())  # some are taken for wording
    for _ in range(50):
        page = text(draw.randrange(1, 40))
        hits = index.match(measure(page)[1])
        expected: dict[int, list[int]] = {}
        for n, place in ((11, 0), (6, 1)):
            for gram in grams(page.split(), n):
                for owner in kept.get(gram, ()):
                    expected.setdefault(owner, [0, 0])[place] += 1
        found, longs, shorts = index.evidence(hits.grams)
        assert {int(one): [int(a), int(b)] for one, a, b in zip(found, longs, shorts, strict=True)} == expected


def test_reasons() -> None:
    """Twelve words in a row hold no long n-gram, and five short ones that cover all twelve."""
    question, answer = words(30), words(3)
    short = words(12)
    index = BenchmarkIndex.of([item(0, question, answer), item(1, short, "two words"), item(2, words(5), "yes")], SETTINGS)
    asked = question.split()
    before, after = words(200), words(200)
    texts = [
        f"{before}, {' '.join(asked[3:16]).upper()}! {after}",  # thirteen words in a row, whatever their case and marks
        f"{before} {' '.join(asked[3:15])} {after}",  # twelve words of 33
        f"{before} {' '.join(asked[3:15])} as we know {answer}. {after}",  # and the answer
        f"{before} {' '.join(asked[3:15])} {words(60)} {answer} {after}",  # and the answer far away
        f"{before} {answer} {after}",  # the answer alone
        f"{before} {short} {after}",  # twelve of 14
        f"{before} {' '.join(asked[3:11])} {after}",  # eight of 33
        f"{before} {after}",
        " um ".join(" ".join(asked[start : start + 10]) for start in (0, 10, 20)),  # a word put in after every ten
    ]
    hits = pages_of(index, texts)
    verdicts = decide(index, hits)
    assert {page: [(one.item, one.reason) for one in found] for page, found in verdicts.pages.items()} == {
        0: [(0, "exact")],
        2: [(0, "answer")],
        5: [(1, "coverage")],
        8: [(0, "coverage")],
    }
    assert {page: [(one.reason, one.coverage) for one in found] for page, found in verdicts.near.items()} == {
        1: [("near", 0.3636)],
        3: [("near", 0.3636)],
    }
    assert verdicts.dirty.tolist() == [True, True, False]
    assert index.searchable().tolist() == [True, True, False]  # the last is too short to be found
    assert hits[7] is NO_HITS
    assert hits[6].grams.dtype == np.int32
    assert not verdicts.contaminated(4)
    assert index.match(np.empty(0, np.uint64)) is NO_HITS
    strict = decide(index, hits, Decontamination(coverage=0.9, near_coverage=0.9))
    assert list(strict.pages) == [0, 8]


def test_the_document_frequency_guard() -> None:
    """A phrase of an item that many pages have is no evidence; the rest of the item still is."""
    phrase, rest = words(14), words(14)
    index = BenchmarkIndex.of([item(0, f"{phrase} {rest}")], SETTINGS)
    texts = [f"{words(5)} {phrase} {words(5)}" for _ in range(21)] + [f"{words(5)} {rest} {words(5)}"]
    hits = pages_of(index, texts)
    verdicts = decide(index, hits)
    assert list(verdicts.pages) == [21]
    assert verdicts.common_grams == 7 + 2  # the short and the long ones within fourteen words
    loose = Decontamination(max_document_frequency=21)
    assert list(decide(index, hits, loose).pages) == list(range(22))
    # Frequencies of two parts of a crawl add up, and a page alone cannot know them.
    parts = document_frequencies(index, hits[:10]) + document_frequencies(index, hits[10:])
    assert decide(index, hits[:10], SETTINGS, parts).pages == {}
    assert len(decide(index, hits[:10], SETTINGS).pages) == 10


def test_an_item_that_many_pages_copy_is_found_on_each() -> None:
    """Its n-grams are on more pages than the guard lets pass; a page with a part of it is still let go."""
    text = words(40)
    index = BenchmarkIndex.of([item(0, text), item(1, words(9))], SETTINGS)
    part, most = " ".join(text.split()[:30]), " ".join(text.split()[:37])
    texts = [f"{words(5)} {text} {words(5)}" for _ in range(40)] + [part, most, " ".join(text.split()[3:])]
    found = decide(index, pages_of(index, texts)).pages
    assert list(found) == [*range(40), 41, 42]
    assert {(one.item, one.reason) for page in found.values() for one in page} == {(0, "whole")}
    assert found[41][0].coverage == 0.925
    assert decide(index, pages_of(index, texts), Decontamination(whole_coverage=1.0)).pages.keys() == set(range(40))
    question, answer = words(30), words(4)
    index = BenchmarkIndex.of([item(0, question, answer)], SETTINGS)
    assert len(decide(index, pages_of(index, [f"{question} {words(9)} {answer}" for _ in range(40)])).pages) == 40
    opening = words(10)  # eleven questions begin with it, so it is none's own
    items = [item(number, f"{opening} {words(18)}", words(3)) for number in range(11)]
    index = BenchmarkIndex.of(items, SETTINGS)
    hits = pages_of(index, [f"{items[number % 2].question} {words(9)}" for number in range(60)])
    assert {(page % 2, found[0].item, found[0].coverage) for page, found in decide(index, hits).pages.items()} == {(0, 0, 1.0), (1, 1, 1.0)}
    saying = words(11)  # as short as a saying, and on as many pages
    index = BenchmarkIndex.of([item(0, saying)], SETTINGS)
    assert decide(index, pages_of(index, [f"{words(5)} {saying} {words(5)}"] * 40)).pages == {}
    assert decide(index, pages_of(index, [saying] * 20)).pages.keys() == set(range(20))


def test_wording_of_a_benchmark_is_no_evidence() -> None:
    """Every item of a task begins alike; another task that shares a sentence with one of them counts for itself."""
    opening = words(15)
    own = [words(20) for _ in range(12)]
    items = [item(number, f"{opening} {one}") for number, one in enumerate(own)] + [item(0, f"{opening} {words(9)}", task="u")]
    index = BenchmarkIndex.of(items, SETTINGS)
    opened, asked = pages_of(index, [opening, own[5]])
    assert [one.item for one in decide(index, [opened]).pages[0]] == [12]
    assert [one.item for one in decide(index, [asked]).pages[0]] == [5]


def test_the_index_is_a_function_of_the_items() -> None:
    items = [item(number, words(30), task=f"t{number % 2}") for number in range(8)]
    one, again = BenchmarkIndex.of(items, SETTINGS), BenchmarkIndex.of(items, SETTINGS)
    assert one.fingerprint == again.fingerprint != BenchmarkIndex.of(items[:-1], SETTINGS).fingerprint
    with pytest.raises(InputError, match="must be below words"):
        BenchmarkIndex.of(items, Decontamination(words=9, coverage_words=9))
    with pytest.raises(InputError, match="comes from two folders"):
        BenchmarkIndex.of([*items, items[0]], SETTINGS)
    with pytest.raises(InputError, match="no benchmark items"):
        BenchmarkIndex.of([], SETTINGS)
