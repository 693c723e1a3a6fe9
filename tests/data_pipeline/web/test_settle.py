"""Which page of a cluster stays, what the others are told, and what follows for clusters of clusters."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data_pipeline.web.duplicates import signature, text_key
from data_pipeline.web.funnel import Funnel
from data_pipeline.web.measures import measure
from data_pipeline.web.recipe import Thresholds, WebRecipe
from data_pipeline.web.route import ledger_rows, route
from data_pipeline.web.rules import Minimum, threshold_rules
from data_pipeline.web.same_address import address_key
from data_pipeline.web.settle import EXACT, KEY, NEAR, PASSED, SAME_ADDRESS, Crawl, chosen, seconds_of, settle
from data_pipeline.web.tables import SEGMENT, VALUES

RECIPE = WebRecipe(languages=(), held_out=0.0, rules=Thresholds(min_words=1))
POORER = {"stop_words": 3}  # passes the rules, and not those of the clean subset
STORY = " ".join(f"word{number} of the story that we have to tell" for number in range(60))
OTHER = " ".join(f"thing{number} in another place with a name to be found" for number in range(60))


class Made(Crawl):
    """A crawl of rows in memory, two rows a batch."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.table = pa.Table.from_pylist(rows, SEGMENT)

    def batches(self, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        for place in range(0, self.table.num_rows, 2):
            yield place, self.table.select(names).slice(place, 2).combine_chunks().to_batches()[0]


def row(name: str, text: str, url: str = "", **others: object) -> dict[str, object]:
    values, hashes = measure(text)
    row: dict[str, object] = {field.name: "" if field.type == pa.string() else None for field in SEGMENT}
    kept = {name: 0 if kind == pa.int64() else 0.0 for name, kind in VALUES} | {"words": values.words, "characters": values.characters}
    # Values that pass every rule; only texts and keys matter here.
    kept |= {
        rule.measure: rule.threshold + 1 for rule in threshold_rules(RECIPE.clean) if isinstance(rule, Minimum) and rule.measure != "words"
    }
    signed = signature(hashes, RECIPE.duplicates).tobytes() if len(hashes) else None
    keys = {"text_key": text_key(text), "signature": signed, "hits": b""}
    address = {"url": url, "address_key": address_key(url)} if url else {}
    return row | {"id": name, "text": text, "text_bytes": len(text), "html_bytes": 1} | kept | keys | address | others


def settled(tmp_path: Path, rows: list[dict[str, object]], recipe: WebRecipe = RECIPE):  # type: ignore[no-untyped-def]
    return settle(recipe, Made(rows), tmp_path, 0)


def test_of_near_and_exact_duplicates_the_best_stays_and_of_equals_the_first(tmp_path: Path) -> None:
    near = STORY.replace("word7 ", "word70 ")
    rows = [row("a", STORY), row("b", STORY), row("c", near), row("d", OTHER)]
    found = settled(tmp_path, rows)
    assert found.fate.tolist() == [PASSED, EXACT, NEAR, PASSED]
    assert found.stays.tolist() == [0, 0, 0, 3]
    assert 0.8 < found.value[2] < 1.0
    better = settled(tmp_path, [rows[0] | POORER, rows[1] | POORER, rows[2], rows[3]])
    assert better.fate.tolist() == [NEAR, EXACT, PASSED, PASSED]
    assert better.stays.tolist() == [2, 2, 2, 3]  # b was told a, and a went for c
    assert better.firsts.tolist() == [0, 0, 0, 3]
    assert better.names == {0: "a", 2: "c"}


def test_pages_without_letters_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    near = STORY.replace("word7 ", "word70 ")
    faces, hands = "\N{GRINNING FACE} " * 60, "\N{WAVING HAND SIGN} " * 60  # words, but nothing that a signature is made of
    found = settled(tmp_path, [row("faces", faces), row("a", STORY), row("hands", hands), row("b", near), row("more", hands)])
    assert found.fate.tolist() == [PASSED, PASSED, PASSED, NEAR, EXACT]
    assert found.stays.tolist() == [0, 1, 2, 1, 2]


def test_of_near_duplicates_the_one_with_the_best_score_stays(tmp_path: Path) -> None:
    near = STORY.replace("word7 ", "word70 ")
    rows = [row("a", STORY, quality=2.5), row("b", near, quality=4.0) | POORER, row("c", OTHER, quality=0.1)]
    assert settled(tmp_path, rows).stays.tolist() == [1, 1, 2]
    rows[1] = row("b", near, quality=1.0)
    assert settled(tmp_path, rows).stays.tolist() == [0, 0, 2]


def test_of_one_address_the_page_fetched_last_stays(tmp_path: Path) -> None:
    rows = [
        row("old", STORY, "http://example.org/a?utm_source=x", fetched="2024-01-01T00:00:00Z"),
        row("new", OTHER, "https://www.example.org/a", fetched="2025-06-01T00:00:00Z"),
        row("none", STORY + " once more and with an end"),
    ]
    found = settled(tmp_path, rows)
    assert found.fate.tolist() == [SAME_ADDRESS, PASSED, PASSED]
    assert found.stays.tolist() == [1, 1, 2]
    both = settled(
        tmp_path, rows, RECIPE.model_copy(update={"duplicates": RECIPE.duplicates.model_copy(update={"one_per_address": False})})
    )
    assert SAME_ADDRESS not in both.fate.tolist()


def test_the_ledger_names_cluster_and_page_that_stays(tmp_path: Path) -> None:
    rows = [row("a", STORY) | POORER, row("b", STORY.replace("word7 ", "word70 ")), row("c", OTHER)]
    crawl = Made(rows)
    found = settle(RECIPE, crawl, tmp_path, 0)
    told = [one for place, batch in crawl.batches(SEGMENT.names) for one in ledger_rows(RECIPE, batch, place, found).to_pylist()]
    assert [one["outcome"] for one in told] == ["dropped", "kept", "kept"]
    assert [one["cluster"] for one in told] == ["a", "a", ""]
    assert [one["representative"] for one in told] == ["b", "b", ""]
    assert [one["duplicate_of"] for one in told] == ["b", "", ""]
    assert told[0]["reason"] == "near_duplicate"
    assert told[0]["threshold"] == RECIPE.duplicates.threshold


def test_repeated_lines_are_taken_out_and_empty_pages_dropped(tmp_path: Path) -> None:
    notice = "All the rights of this site are kept by its owner"
    texts = [f"{notice}\n\nPage {number} tells of {' '.join(f'x{number}y{word}' for word in range(30))}." for number in range(4)]
    rows = [row(f"p{number}", text, domain="example.org") for number, text in enumerate([*texts, notice])]
    recipe = RECIPE.model_copy(update={"lines": RECIPE.lines.model_copy(update={"documents": 3})})
    found = settled(tmp_path, rows, recipe)
    assert found.fate.tolist()[:4] == [PASSED] * 4
    assert found.lines is not None
    text, lost = found.lines.edit(0, texts[0], "example.org")
    assert notice not in text
    assert lost >= len(notice)
    crawl = Made(rows)
    assert [
        one["reason"] for place, batch in crawl.batches(SEGMENT.names) for one in ledger_rows(recipe, batch, place, found).to_pylist()
    ] == [
        *([""] * 4),
        "repeated_lines",
    ]
    funnel = Funnel(0)
    for place, batch in crawl.batches(SEGMENT.names):
        funnel.count(ledger_rows(recipe, batch, place, found))
    left = {one["step"]: one["documents"] for one in funnel.record()["steps"]}
    assert [left["pass the quality rules"], left["without benchmark items"], left["with text beside repeated lines"]] == [5, 5, 4]
    funnel = Funnel(0)
    (tmp_path / "out").mkdir()
    route(recipe, crawl, found, tmp_path / "out", funnel)
    kept = pq.read_table(tmp_path / "out/kept.parquet").column("text").to_pylist()
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    assert funnel.kept["text_bytes"] == sum(len(text.encode()) for text in kept) < sum(map(len, texts))
    assert funnel.kept["words"] == sum(measure(text)[0].words for text in kept)
    assert sum(one["removed_bytes"] for one in ledger) == sum(map(len, texts)) - funnel.kept["text_bytes"]


def test_dates_are_read_or_are_none() -> None:
    dates = [
        "2024-01-01T00:00:00Z",
        "2024-01-01",
        "2024-01-01T01:00:00+01:00",
        "now",
        "today",
        "",
        "20240101000000",
        "9999-99-99T00:00:00Z",
    ]
    assert seconds_of(np.array(dates, object)).tolist() == [1704067200.0] * 3 + [0.0] * 5


def test_a_page_of_nothing_but_repeated_lines_is_dropped_whatever_the_rules_allow(tmp_path: Path) -> None:
    notice = "All the rights of this site are kept by its owner"
    texts = [f"{notice}\n\nPage {number} tells of {' '.join(f'x{number}y{word}' for word in range(30))}." for number in range(2)]
    rows = [row(f"p{number}", text, domain="example.org") for number, text in enumerate([*texts, notice])]
    rules = RECIPE.rules.model_copy(update={"min_words": 0})
    recipe = RECIPE.model_copy(update={"rules": rules, "lines": RECIPE.lines.model_copy(update={"documents": 3})})
    found = settled(tmp_path, rows, recipe)
    told = [one for place, batch in Made(rows).batches(SEGMENT.names) for one in ledger_rows(recipe, batch, place, found).to_pylist()]
    assert [(one["reason"], one["value"], one["threshold"]) for one in told[2:]] == [("repeated_lines", 0.0, 1.0)]
    assert [one["outcome"] for one in told[:2]] == ["kept", "kept"]


def test_held_out_pages_are_chosen_by_their_text() -> None:
    texts = [bytes([number]) * 16 for number in range(200)]
    keys, rows = np.frombuffer(b"".join(texts), KEY), np.arange(200)
    first = chosen(keys, rows, 0.1, 0).tolist()
    assert first == [row for row, text in enumerate(texts) if xxhash.xxh3_64_intdigest(text, seed=0) < 0.1 * 2**64]
    assert 5 < len(first) < 40
    assert chosen(keys[:100], rows[:100], 0.1, 0).tolist() == [one for one in first if one < 100]  # others come and go, it stays
    assert chosen(keys, rows, 0.1, 1).tolist() != first
    assert len(chosen(keys[:2], rows[:2], 1e-12, 0)) == 1
    assert len(chosen(keys, rows, 0.0, 0)) == 0


def test_an_empty_crawl_settles(tmp_path: Path) -> None:
    assert len(settled(tmp_path, []).fate) == 0
    assert np.array_equal(settled(tmp_path, [row("a", STORY)]).stays, [0])
