"""The generated crawl: the same bytes for the same arguments, all kinds in it, its gold is right, and the check finds wrong verdicts."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.check_crawl import check
from benchmarks.crawl_pages import KINDS
from benchmarks.make_crawl import make
from data_pipeline.storage import read_json_lines, sha256_of
from data_pipeline.web.reading import Broken, Page, read_records
from data_pipeline.web.url_rules import AddressRules, check_address


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "crawl"
    make(folder, 2_000_000, 2, 3)
    return folder


def test_the_crawl_is_what_its_gold_says(crawl: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", 2_000_000, 2, 3)
    names = sorted(str(one.relative_to(crawl)) for one in crawl.rglob("*") if one.is_file())
    assert [sha256_of(crawl / name) for name in names] == [sha256_of(tmp_path / "again" / name) for name in names]
    gold = list(read_json_lines(crawl / "gold.jsonl"))
    assert set(KINDS) | {"damaged"} == {row["kind"] for row in gold}
    found = [one for name in names if name.endswith(".warc.gz") for one in read_records(str(crawl / name))]
    pages = {one.url: one for one in found if isinstance(one, Page)}
    assert Counter(one.url for one in found if isinstance(one, Page)) == Counter(row["url"] for row in gold if row["expect"] != "absent")
    assert sum(isinstance(one, Broken) for one in found) == sum(row["expect"] == "absent" for row in gold) == 10
    rules = AddressRules(domain_lists=(str(crawl / "blocked_domains.txt"),))
    for row in gold:
        if row["expect"] == "absent":
            continue
        page = pages[row["url"]]
        html = page.html.decode()
        assert all(paragraph in html for paragraph in row["text"].split("\n\n"))
        assert all(one in html for one in [*row["personal"], *row["hidden"]])
        assert (check_address(rules, row["url"]) is not None) == (row["kind"] == "blocked")
        assert ("noindex" in page.metadata.get("robots", "")) == (row["kind"] == "noindex")
        if row["kind"] in ("exact copy", "other address"):
            assert page.html == pages[row["copy_of"]].html


def test_the_check_counts_wrong_verdicts(crawl: Path, tmp_path: Path) -> None:
    gold = list(read_json_lines(crawl / "gold.jsonl"))
    kept = [{"url": row["url"], "text": row["text"] or "x"} for row in gold if row["expect"] == "keep"]
    dropped = [{"url": row["url"], "reason": row["kind"]} for row in gold if row["expect"] == "drop"]
    pq.write_table(pa.Table.from_pylist(kept), tmp_path / "kept.parquet")
    pq.write_table(pa.Table.from_pylist(dropped), tmp_path / "dropped.parquet")
    right = check(crawl, tmp_path)
    assert (right["wrong"], right["not_in_gold"], right["gold_words_found"]) == (0, 0, 1.0)
    spam = next(row for row in dropped if row["reason"] == "spam")
    leak = next(row["personal"][0] for row in gold if row["personal"])
    url = next(row["url"] for row in gold if row["personal"])
    changed = [row | {"text": f"x {leak}"} if row["url"] == url else row for row in kept]
    pq.write_table(pa.Table.from_pylist([*changed, {"url": spam["url"], "text": "x"}]), tmp_path / "kept.parquet")
    pq.write_table(pa.Table.from_pylist([row for row in dropped if row is not spam]), tmp_path / "dropped.parquet")
    wrong = check(crawl, tmp_path)
    assert (wrong["wrong"], wrong["kinds"]["spam"]["wrong"], wrong["survived"]["personal"]) == (1, 1, 1)
    assert json.dumps(wrong)
