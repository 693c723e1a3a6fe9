"""Labels and documents from files, sites, and sides that share no site."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import InputError
from data_pipeline.quality.labels import Example, labelled, read_labels, site_of
from data_pipeline.quality.site_split import SIDES, divided, side_of
from data_pipeline.records import Document, write_documents


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://docs.school.example/a?b=c", "school.example"),
        ("http://www.school.co.uk:8080/", "school.co.uk"),
        ("a.b.school.ac.nz", "school.ac.nz"),
        ("http://192.0.2.7/x", "192.0.2.7"),
        ("http://[2001:db8::1]/", "2001:db8::1"),
        ("http://localhost/", "localhost"),
        ("", "id:page"),
        ("http://[broken", "id:page"),
    ],
)
def test_sites(url: str, site: str) -> None:
    assert site_of(url, "page") == site


def test_labels_of_both_forms_meet_their_documents(tmp_path: Path) -> None:
    documents = [Document(id=f"d{number}", text=f"text {number}", source="web", url=f"http://s{number}.example/") for number in range(3)]
    write_documents(tmp_path / "d.parquet", documents)
    as_lines = lines(
        tmp_path / "l.jsonl", {"id": "d1", "score": 4, "kind": "concept"}, {"id": "gone", "score": 1}, {"id": "d0", "score": 0.5}
    )
    pq.write_table(
        pa.table({"id": ["d1", "gone", "d0"], "score": [4.0, 1.0, 0.5], "kind": ["concept", None, None]}), tmp_path / "l.parquet"
    )
    for labels in (as_lines, str(tmp_path / "l.parquet")):
        examples, missing = labelled(read_labels(labels), str(tmp_path / "d.parquet"))
        assert missing == ["gone"]
        assert examples == [
            Example("d1", "text 1", "s1.example", "http://s1.example/", 4.0, "concept"),
            Example("d0", "text 0", "s0.example", "http://s0.example/", 0.5, ""),
        ]


def test_labels_that_bring_their_text_need_no_documents(tmp_path: Path) -> None:
    labels = lines(tmp_path / "l.jsonl", {"text": "one", "score": 2}, {"text": "two", "score": 3, "url": "http://a.example/x"})
    examples, _ = labelled(read_labels(labels), None)
    assert [(one.text, one.score) for one in examples] == [("one", 2.0), ("two", 3.0)]
    assert examples[0].site.startswith("id:text:")
    assert examples[1].site == "a.example"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "a", "score": 6}, "row 1: score = 6; a number from 0 to 5"),
        ({"id": "a", "score": "3"}, "score = '3'"),
        ({"id": "a", "score": True}, "score = True"),
        ({"id": "a", "score": float("nan")}, "score = nan"),
        ({"id": "a"}, "score = None"),
        ({"id": "a", "score": 1, "kind": "poem"}, "kind = 'poem'; there is reasoning, concept"),
        ({"score": 1}, "neither id nor text"),
        ({"id": ["a"], "score": 1}, "must be text"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        read_labels(lines(tmp_path / "l.jsonl", row))


def test_two_labels_of_one_document_and_labels_without_documents(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2: the id 'a' has a label already"):
        read_labels(lines(tmp_path / "l.jsonl", {"id": "a", "score": 1}, {"id": "a", "score": 2}))
    labels = read_labels(lines(tmp_path / "m.jsonl", {"id": "a", "score": 1}))
    with pytest.raises(InputError, match="bring no text"):
        labelled(labels, None)
    with pytest.raises(InputError, match="none of the 1 labels has a document"):
        labelled(labels, lines(tmp_path / "d.jsonl", {"id": "b", "text": "x"}))


def examples_of(sites: int, pages: int) -> list[Example]:
    return [
        Example(f"{site}-{page}", "text", f"s{site}.example", "", float(page % 6), "") for site in range(sites) for page in range(pages)
    ]


def test_no_site_is_on_two_sides() -> None:
    examples = examples_of(60, 6)
    sides = divided(examples, 0, 0.2, 0.2, 3)
    sites = {side: {examples[place].site for place in sides[side]} for side in SIDES}
    assert sum(map(len, sites.values())) == 60 == len(set().union(*sites.values()))
    assert sum(len(sides[side]) for side in SIDES) == len(examples)
    assert all(len(sites[side]) > 3 for side in SIDES)
    assert [side_of("s7.example", seed, 0.2, 0.2) for seed in range(12)] != [side_of("s7.example", 0, 0.2, 0.2)] * 12


def test_a_site_stays_where_it_is_when_others_go() -> None:
    few, many = examples_of(40, 6), examples_of(60, 6)
    before = {few[place].site: side for side, places in divided(few, 0, 0.2, 0.2, 3).items() for place in places}
    after = {many[place].site: side for side, places in divided(many, 0, 0.2, 0.2, 3).items() for place in places}
    assert before.items() <= after.items()


def test_a_side_without_both_sorts_is_an_error() -> None:
    with pytest.raises(InputError, match="side has 0, 0 of them with a score of 3 or more"):
        divided(examples_of(1, 30), 0, 0.2, 0.2, 3)
