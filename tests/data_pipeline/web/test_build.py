"""Collect and build from end to end: every generated page gets its verdict, nothing personal survives, and the bytes repeat."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.records import read_documents
from data_pipeline.storage import sha256_of
from data_pipeline.web import collect as collecting
from data_pipeline.web import standard_library
from data_pipeline.web.build import build
from data_pipeline.web.reading import Broken, read_records
from data_pipeline.web.recipe import CollectRecipe, Duplicates, WebRecipe
from data_pipeline.web.standard_library import library_pages, module_names

MODULES = ["bisect", "cmd", "copy", "csv", "fileinput", "fractions", "getopt", "gzip", "hmac", "json", "queue", "random", "sched"]
MODULES += ["statistics", "string", "textwrap", "timeit", "zipfile"]
SMALL = CollectRecipe(spam=4, menus=4, exact_copies=3, near_copies=3, foreign=6, personal=6, stubs=3, symbols=3)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl of a few modules and a few generated pages of each kind."""
    folder = tmp_path_factory.mktemp("crawl") / "crawl"
    collect_small(folder)
    return folder


def collect_small(folder: Path, seed: int = 0) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "module_names", lambda: MODULES)
        return collecting.collect(SMALL, folder, seed)


@pytest.fixture(scope="module")
def recipe() -> WebRecipe:
    return Recipe.load("demo", ["web.workers=1"]).section("web", WebRecipe)


@pytest.fixture(scope="module")
def built(crawl: Path, recipe: WebRecipe) -> Path:
    out = crawl.parent / "web"
    build(recipe, crawl, out, 0)
    return out


def rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for row in pq.read_table(path).to_pylist()}


def truth(crawl: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (crawl / "truth.jsonl").read_text().splitlines()]


def verdicts(crawl: Path, built: Path) -> dict[str, str]:
    dropped = rows(built / "dropped.parquet")
    kept = rows(built / "kept.parquet") | rows(built / "held_out.parquet")
    assert not dropped.keys() & kept.keys()
    return {url: row["reason"] for url, row in dropped.items()} | dict.fromkeys(kept, "keep")


def test_every_generated_page_gets_its_verdict(crawl: Path, built: Path) -> None:
    found = verdicts(crawl, built)
    assert len(truth(crawl)) == 32
    for page in truth(crawl):
        assert found[page["url"]] == page["expect"], page


def test_personal_strings_do_not_survive_anywhere(crawl: Path, built: Path) -> None:
    texts = [row["text"] for name in ("kept", "held_out", "dropped") for row in rows(built / f"{name}.parquet").values()]
    secrets = [secret for page in truth(crawl) for secret in page["personal"]]
    assert len(secrets) == 36
    assert not [secret for secret in secrets if any(secret in text for text in texts)]
    assert any("3.11.7 and listens on 127.0.0.1" in text for text in texts)  # technical numbers stay
    funnel = json.loads((built / "funnel.json").read_text())
    assert all(count >= 6 for count in funnel["personal_data"].values())


def test_without_masking_the_same_strings_are_found(crawl: Path, recipe: WebRecipe, tmp_path: Path) -> None:
    build(recipe.model_copy(update={"mask_personal_data": False}), crawl, tmp_path / "web", 0)
    texts = [row["text"] for name in ("kept", "held_out") for row in rows(tmp_path / f"web/{name}.parquet").values()]
    assert all(any(secret in text for text in texts) for page in truth(crawl) for secret in page["personal"])


def test_a_duplicate_threshold_of_one_keeps_the_near_copies(crawl: Path, recipe: WebRecipe, tmp_path: Path) -> None:
    build(recipe.model_copy(update={"duplicates": Duplicates(threshold=1.0)}), crawl, tmp_path / "web", 0)
    found = verdicts(crawl, tmp_path / "web")
    assert "keep" in {found[page["url"]] for page in truth(crawl) if page["kind"] == "near copy"}


def test_published_thresholds_give_the_generated_pages_the_same_verdicts(crawl: Path, tmp_path: Path) -> None:
    build(WebRecipe(workers=1), crawl, tmp_path / "web", 0)
    found = verdicts(crawl, tmp_path / "web")
    for page in truth(crawl):
        if not page["copy_of"]:  # the fate of a copy hangs on its original, a reference page
            assert found[page["url"]] == page["expect"], page


def test_the_funnel_adds_up(crawl: Path, built: Path) -> None:
    funnel = json.loads((built / "funnel.json").read_text())
    steps = [one["documents"] for one in funnel["steps"]]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == len(MODULES) + 32
    assert (
        steps[0]
        == sum(one["documents"] for one in funnel["dropped"].values()) + funnel["kept"]["documents"] + funnel["held_out"]["documents"]
    )
    assert steps[-1] == funnel["kept"]["documents"] == pq.read_metadata(built / "kept.parquet").num_rows
    for one in funnel["dropped"].values():
        assert sum(one["measures"].values()) == one["documents"]
        assert 1 <= len(one["samples"]) <= 3


def test_dropped_rows_say_value_and_threshold(built: Path) -> None:
    for row in rows(built / "dropped.parquet").values():
        assert row["reason"]
        assert row["value"] != row["threshold"] or row["reason"] == "exact_duplicate"
        assert bool(row["duplicate_of"]) == (row["reason"] in ("exact_duplicate", "near_duplicate"))


def test_kept_documents_are_documents_with_their_values(built: Path) -> None:
    documents = list(read_documents(built / "kept.parquet"))
    table = pq.read_table(built / "kept.parquet")
    assert len(documents) == len(table) > 10
    assert all(one.source == "web" and one.language == "en" for one in documents)
    assert {"clean", "words", "duplicate_5grams", "link_density"} <= set(table.column_names)
    assert 0 < sum(table["clean"].to_pylist()) < len(table)
    assert len(list(read_documents(built / "held_out.parquet"))) >= 1


def test_the_same_crawl_and_recipe_give_the_same_bytes(crawl: Path, recipe: WebRecipe, built: Path, tmp_path: Path) -> None:
    build(recipe.model_copy(update={"workers": 2}), crawl, tmp_path / "web", 0)
    for name in ("kept.parquet", "held_out.parquet", "dropped.parquet", "funnel.json"):
        assert sha256_of(tmp_path / "web" / name) == sha256_of(built / name), name


def test_collecting_twice_gives_the_same_bytes_and_another_seed_others(crawl: Path, tmp_path: Path) -> None:
    collect_small(tmp_path / "again")
    collect_small(tmp_path / "other", seed=1)
    assert sha256_of(tmp_path / "again/pages.warc.gz") == sha256_of(crawl / "pages.warc.gz")
    assert sha256_of(tmp_path / "other/pages.warc.gz") != sha256_of(crawl / "pages.warc.gz")


def test_a_truncated_crawl_gives_its_good_pages_and_a_line(crawl: Path, recipe: WebRecipe, tmp_path: Path) -> None:
    data = (crawl / "pages.warc.gz").read_bytes()
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl/cut.warc.gz").write_bytes(data[: len(data) // 2])
    funnel = build(recipe, tmp_path / "crawl", tmp_path / "web", 0)
    assert 5 < funnel["steps"][0]["documents"] < len(MODULES) + 32
    assert len(funnel["broken_files"]) == 1
    assert "cut.warc.gz: truncated" in funnel["broken_files"][0]


def test_a_crawl_that_the_user_names_is_read_in_place(crawl: Path, tmp_path: Path) -> None:
    record = collecting.collect(CollectRecipe(warc=str(crawl / "*.warc.gz")), tmp_path / "crawl", 0)
    assert record["sources"] == [str(crawl / "pages.warc.gz")]
    assert [one.name for one in (tmp_path / "crawl").iterdir()] == ["sources.json"]
    assert collecting.sources(tmp_path / "crawl") == record["sources"]


def test_bad_crawls_are_one_line_and_leave_what_stood_there(crawl: Path, recipe: WebRecipe, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/kept.parquet").write_text("from before")
    (tmp_path / "crawl").mkdir()
    (tmp_path / "noise.warc").write_text("no archive")
    first_record = next(zone for zone in (crawl / "pages.warc.gz").read_bytes().split(b"\x1f\x8b\x08\x00") if zone)
    (tmp_path / "empty.warc.gz").write_bytes(b"\x1f\x8b\x08\x00" + first_record)
    for pattern, says in (("none.warc", "no such file"), ("noise.warc", "not a WARC file"), ("empty.warc.gz", "an empty crawl")):
        with pytest.raises(InputError, match=says) as caught:
            collecting.collect(CollectRecipe(warc=str(tmp_path / pattern)), tmp_path / "new", 0)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="no crawl there"):
        build(recipe, tmp_path / "crawl", tmp_path / "web", 0)
    (tmp_path / "crawl/empty.warc.gz").write_bytes((tmp_path / "empty.warc.gz").read_bytes())
    with pytest.raises(InputError, match="an empty crawl"):
        build(recipe, tmp_path / "crawl", tmp_path / "web", 0)
    assert (tmp_path / "web/kept.parquet").read_text() == "from before"
    assert not list(tmp_path.glob(".web*"))


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.warc.gz").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"mine\.warc\.gz"):
        collecting.collect(SMALL, tmp_path / "own", 0)
    assert (tmp_path / "own/mine.warc.gz").read_bytes() == b"precious"
    with pytest.raises(InputError, match="a file stands there"):
        collecting.collect(SMALL, tmp_path / "own/mine.warc.gz", 0)


def test_a_module_that_acts_on_import_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"antigravity", "this", "idlelib", "turtledemo"}.isdisjoint(module_names())
    acts = """
import sys
class Acts:
    def find_spec(self, name, path=None, target=None):
        if name == "spins":
            while True: pass
        if name == "exits": os._exit(3)
        if name == "leaves": sys.exit("bye")
        if name == "prints": print("printed", file=sys.stdout)
sys.meta_path.insert(0, Acts())
"""
    head, loop, rest = standard_library.CHILD.partition("for name in names:")
    monkeypatch.setattr(standard_library, "CHILD", head + acts + loop + rest)
    pages = list(library_pages(["bisect", "spins", "exits", "leaves", "prints", "queue"], 1.0))
    assert [(page.module, page.error) for page in pages] == [
        ("bisect", ""),
        ("spins", "killed its process"),
        ("exits", "killed its process"),
        ("leaves", "SystemExit"),
        ("prints", "ModuleNotFoundError"),
        ("queue", ""),
    ]


def test_pages_name_nothing_of_this_machine(crawl: Path) -> None:
    for page in read_records(str(crawl / "pages.warc.gz")):
        assert not isinstance(page, Broken)
        if "localhost" in page.url:
            assert str(Path.home()).encode() not in page.html or str(Path.home()) == "/"
            assert b" at 0x7" not in page.html


def test_pages_do_not_tell_how_the_interpreter_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`platform` keeps sys.executable as a default argument, which pydoc prints; virtual environments name it differently."""
    other = tmp_path / "another-python"
    other.symlink_to(Path(sys.executable).resolve())
    usual = list(library_pages(["platform"], 20.0))
    monkeypatch.setattr(sys, "executable", str(other))
    assert list(library_pages(["platform"], 20.0)) == usual
    assert "architecture" in usual[0].html
    assert "another-python" not in usual[0].html
