"""A page's story: the ledger's facts, the rules it meets, its cluster, and the tokens that its text became."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import phial
from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.tokens.build import tokenize_run, train_run_tokenizer
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.web import tables
from data_pipeline.web.build import build
from data_pipeline.web.build_settings import settings_of
from data_pipeline.web.explain import explain, page_of_token, story
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.warc_writer import WarcWriter
from tests.data_pipeline.web.made_ledger import make_web_folder
from tests.data_pipeline.web.small_crawl import RECIPE, make_small, page, write_crawl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A built and tokenized run, with a copy of a page under another address."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    write_crawl(run.crawl, files=2)
    with open(run.crawl / "part-9.warc.gz", "wb") as stream:
        WarcWriter(stream, "made by a test").response("http://mirror.example/copy", page(1).encode())
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        build(RECIPE, run.crawl, run.web, 0)
    recipe = Recipe({"web": json.loads(RECIPE.model_dump_json())}, "the test")
    recipe.section("web", WebRecipe)
    recipe.save(run.recipe)
    train_run_tokenizer(TokenizerRecipe(vocab_size=512), run)
    tokenize_run(TokensRecipe(sources=("web",), shard_tokens=1024), run)
    return run


def test_a_kept_page_is_followed_to_its_tokens_and_back(run: RunFolder) -> None:
    from tokenizers import Tokenizer

    tokenizer, shards = Tokenizer.from_file(str(run.tokenizer / "tokenizer.json")), TokenShards.open(run.tokens / "web")
    assert shards.num_shards > 1
    rows = pq.read_table(run.web / "kept.parquet").to_pylist()
    assert len(rows) > 5
    for row in rows:
        found = explain(run, RECIPE, row["id"])
        place = found["tokens"]["web"]
        ids = shards.read(place["token"], place["token"] + place["tokens"])
        assert tokenizer.decode(ids.tolist()) == row["text"]
        assert place["offset"] == place["token"] - int(shards.bounds[place["shard"]])
        assert page_of_token(run, "web", place["token"]) == page_of_token(run, "web", place["token"] + place["tokens"] - 1) == row["id"]
        assert all(rule["met"] for rule in found["rules"])


def test_a_copy_names_the_page_that_stays_and_its_cluster(run: RunFolder) -> None:
    found = explain(run, RECIPE, "http://mirror.example/copy")
    first = explain(run, RECIPE, "http://example.org/0/1")
    assert found["row"]["reason"] == "exact_duplicate"
    assert found["cluster"] == [first["row"]["id"], found["row"]["id"]] == first["cluster"]
    assert found["row"]["representative"] == first["row"]["id"]
    told = "\n".join(story(found))
    assert "dropped: exact_duplicate; similarity is 1, the threshold 1" in told
    assert "cluster of 2" in told
    assert not found["tokens"]


def test_rules_that_a_page_does_not_meet_are_marked(run: RunFolder) -> None:
    strict = RECIPE.model_copy(update={"rules": RECIPE.rules.model_copy(update={"min_words": 5000})})
    found = explain(run, strict, "http://example.org/0/1")
    assert [rule["measure"] for rule in found["rules"] if not rule["met"]] == ["words"]
    assert sum(line.startswith("  !") for line in story(found)) == 1


def test_thresholds_are_those_of_the_build(run: RunFolder) -> None:
    kept = json.loads((run.web / "funnel.json").read_text())["settings"]
    assert "workers" not in kept  # which changes no byte of a build
    told = settings_of(run.web, run.recipe)
    assert told is not None
    assert told.rules == RECIPE.rules


def test_tokens_of_another_build_are_not_told(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path)
    for name in ("web", "tokens"):
        (tmp_path / name).symlink_to(run.root / name)
    (tmp_path / "web").unlink()
    (tmp_path / "web").mkdir()
    (tmp_path / "web/ledger.parquet").symlink_to(run.web / "ledger.parquet")
    kept = pq.read_table(run.web / "kept.parquet")
    pq.write_table(kept.slice(1), tmp_path / "web/kept.parquet")
    name = kept.column("id")[3].as_py()
    assert "of another build" in explain(other, RECIPE, name)["tokens"]["web"]["told"]
    with pytest.raises(InputError, match="of another build"):
        page_of_token(other, "web", 0)
    pq.write_table(kept.take([0, 0, *range(2, kept.num_rows)]), tmp_path / "web/kept.parquet")  # as many pages as there were
    assert "another kept.parquet" in explain(other, RECIPE, name)["tokens"]["web"]["told"]


def test_the_verb(run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["phial", "data", "explain", *words])
        with pytest.raises(SystemExit) as caught:
            phial.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    code, out, _ = call(str(run.root), "--token", "web:0", "--json")
    assert (code, json.loads(out)["row"]["outcome"]) == (0, "kept")
    code, out, _ = call(str(run.root), "http://example.org/0/0")
    assert code == 0
    assert "record 2 at byte" in out
    for words, says in (
        ([str(run.root), "http://example.org/0/00"], "near are http://example.org/0/0"),
        ([str(run.root)], "one of the two is needed"),
        ([str(run.root), "--token", "web:x"], "SOURCE:NUMBER"),
        ([str(run.root), "--token", "book:1"], "web or web_clean"),
        ([str(run.root), "--token", "web:99999999"], "token 99,999,999; 0 to"),
        ([str(tmp_path), "x"], "no ledger"),
    ):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert says in err


def made(folder: Path, **settings: object) -> RunFolder:
    """A made run whose ledger has several row groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "GROUP_BYTES", 100_000)
        make_web_folder(folder / "web", rows=2000, files=4, chunk=500, **settings)  # type: ignore[arg-type]
    return RunFolder(folder)


def test_pages_of_later_row_groups_are_found_and_named(tmp_path: Path) -> None:
    run = made(tmp_path)
    ledger = pq.ParquetFile(run.web / "ledger.parquet")
    assert ledger.num_row_groups > 3
    rows = ledger.read(["id", "url", "domain"]).to_pylist()
    for place in (0, 700, 1999):
        for name in ("id", "url"):
            found = explain(run, RECIPE, rows[place][name])
            assert (found["place"], found["row"]["id"]) == (place, rows[place]["id"])
    last = rows[1990]
    for wrong, right in ((last["id"] + "9", last["id"]), (last["url"].replace("http://site", "https://site"), last["url"])):
        with pytest.raises(InputError, match="near are") as caught:
            explain(run, RECIPE, wrong)
        assert right in str(caught.value)
    with pytest.raises(InputError, match="give an id or an address"):
        explain(run, RECIPE, "§")


def test_an_older_ledger_is_told_without_what_it_lacks(tmp_path: Path) -> None:
    run = made(tmp_path, leave_out=("cluster", "representative", "words", "contamination", "offset", "quality", "personal_ip"))
    row = next(row for row in pq.read_table(run.web / "ledger.parquet").to_pylist() if row["reason"] == "near_duplicate")
    found = explain(run, RECIPE, row["id"])
    assert found["cluster"] == []
    lines = story(found)
    assert any("at byte ? of" in line for line in lines)
    assert lines[-1].startswith("  not measured in this build: ")
    assert {"words", "cluster"} <= set(found["not_measured"])


def test_no_text_is_read_to_find_tokens(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path)
    shutil.copytree(run.tokens, tmp_path / "tokens")
    manifest = json.loads((run.tokens / "web/manifest.json").read_text())
    del manifest["texts"]  # which would tell this kept.parquet from the real one
    (tmp_path / "tokens/web/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "web").mkdir()
    (tmp_path / "web/ledger.parquet").symlink_to(run.web / "ledger.parquet")
    kept = pq.read_table(run.web / "kept.parquet")
    pq.write_table(kept.drop_columns(["text"]), tmp_path / "web/kept.parquet")
    name = kept.column("id")[3].as_py()
    place = explain(other, RECIPE, name)["tokens"]["web"]
    assert place == explain(run, RECIPE, name)["tokens"]["web"]
    assert page_of_token(other, "web", place["token"]) == name
