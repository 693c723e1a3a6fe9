"""A made build to its report: numbers against the ledger read whole, the same bytes twice, hostile texts, older ledgers, the verb."""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import phial
from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.web.build_settings import settings_of, settings_to_keep
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.report import ReportOptions, write_report
from data_pipeline.web.thresholds import Thresholds
from tests.data_pipeline.web.made_ledger import make_web_folder

NASTY = "<script>alert('x')</script> \x07 \u202e \"quoted\" & <img src=http://elsewhere.example/x onerror=alert(1)> {{ 7 * 7 }}"
OPTIONS = ReportOptions(resamples=200, samples=4, price_per_core_hour=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6,000 records in nine files, with a recipe and hostile texts."""
    run = tmp_path_factory.mktemp("made")
    make_web_folder(run / "web", rows=6000, files=9, seed=4, nasty=NASTY, chunk=2500)
    recipe = Recipe({}, "the test")
    recipe.section("web", WebRecipe)
    recipe.save(run / "recipe.toml")
    return run


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, Any]:
    return write_report(run / "web", run / "data_report", OPTIONS)


@pytest.fixture(scope="module")
def rows(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "web/ledger.parquet").to_pylist()


def test_counts_are_those_of_the_ledger(run: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert record["records"] == len(rows)
    for outcome in ("kept", "held_out", "dropped"):
        here = [row for row in rows if row["outcome"] == outcome]
        told = record["outcomes"][outcome]
        assert (told["documents"], told["html_bytes"]) == (len(here), sum(row["html_bytes"] for row in here))
        assert told["text_bytes"] == sum(row["text_bytes"] or 0 for row in here)
    pairs = Counter((row["reason"], row["measure"]) for row in rows if row["reason"])
    assert {(one["reason"], one["measure"]): one["documents"] for one in record["reasons"]} == pairs
    short = next(one for one in record["reasons"] if one["measure"] == "words")
    exact = np.quantile([row["value"] for row in rows if row["measure"] == "words"], 0.5, method="lower")
    assert (short["threshold"], short["value_p50"]) == (50, exact)
    funnel = storage.read_json(run / "web/funnel.json")
    assert [(one["step"], one["documents"]) for one in record["funnel"]] == [(one["step"], one["documents"]) for one in funnel["steps"]]
    assert record["funnel_note"] == ""


def test_tables_hold_everything(run: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    def table(name: str) -> list[dict[str, Any]]:
        return pq.read_table(run / "data_report" / f"{name}.parquet").to_pylist()

    kept = Counter(row["domain"] for row in rows if row["outcome"] == "kept")
    assert {one["domain"]: one["kept"] for one in table("domains") if one["kept"]} == kept
    assert {one["file"]: one["documents"] for one in table("files")} == Counter(row["file"] for row in rows)
    sizes = Counter(row["cluster"] for row in rows if row["cluster"])
    assert {one["pages"]: one["clusters"] for one in table("clusters")} == Counter(size for size in sizes.values() if size > 1)
    assert record["clusters"]["largest"][0]["pages"] == max(sizes.values())
    bars = [one for one in table("measures") if one["measure"] == "duplicate_5grams"]
    measured = [row for row in rows if row["duplicate_5grams"] is not None]
    assert sum(one["kept"] + one["dropped"] for one in bars) == len(measured)
    assert sum(one["dropped_by_it"] for one in bars) == sum(row["measure"] == "duplicate_5grams" for row in rows)
    assert record["contamination"]["benchmarks"][0]["documents"] == sum("mmlu" in row["contamination"] for row in rows)


def test_thresholds_come_from_the_recipe(record: dict[str, Any]) -> None:
    told = {one["name"]: [(line["side"], line["value"], line["clean"]) for line in one["thresholds"]] for one in record["measures"]}
    assert told["words"] == [("at least", 50, False), ("at least", 100, True), ("at most", 100_000, False)]
    assert told["line_ends"] == [("at least", 0.12, False)]


def test_thresholds_are_those_of_the_build_whatever_recipe_came_later(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "web", tmp_path / "web")
    funnel = storage.read_json(tmp_path / "web/funnel.json")
    settings = settings_to_keep(WebRecipe(rules=Thresholds(min_words=77)))
    storage.write_json(tmp_path / "web/funnel.json", funnel | {"settings": settings})
    shutil.copy(run / "recipe.toml", tmp_path / "recipe.toml")  # of another recipe, with 50
    found = settings_of(tmp_path / "web", tmp_path / "recipe.toml")
    assert found is not None
    assert found.rules.min_words == 77
    (tmp_path / "web/funnel.json").write_text("{")
    found = settings_of(tmp_path / "web", tmp_path / "recipe.toml")
    assert found is not None
    assert found.rules.min_words == 50


def test_a_damaged_file_of_pages_is_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "web", tmp_path / "web")
    (tmp_path / "web/kept.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"kept.parquet: damaged .*run `phial data build` again"):
        write_report(tmp_path / "web", tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_figures_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ReportOptions(price_per_core_hour=float("inf"))


def test_nothing_on_the_page_runs_or_loads(run: Path, record: dict[str, Any]) -> None:
    page = (run / "data_report/report.html").read_text(encoding="utf-8")
    assert "alert(" in page  # the hostile texts are shown
    assert "&lt;script&gt;alert(&#39;x&#39;)" in page
    tags = re.findall(r"<\s*([a-zA-Z!/][^\s>]*)", page)
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & {tag.lower() for tag in tags}
    assert not re.search(r"""\s(?:on\w+|src)\s*=\s*["']""", re.sub(r"<p>.*?</p>", "", page, flags=re.DOTALL))
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]
    assert "default-src 'none'" in page
    assert "\x07" not in page
    assert "{{ 7 * 7 }}" in page
    assert "<code>--crawl-pages</code>" in page
    assert "&lt;code&gt;" not in page  # our own tags are none of the texts


def test_a_second_report_is_the_same_but_for_its_times(run: Path, record: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "again", ignore=shutil.ignore_patterns("data_report"))
    speed = storage.read_json(run / "web/speed.json")
    speed["stages"][0]["cpu_seconds"] *= 3
    storage.write_json(tmp_path / "again/web/speed.json", speed)
    write_report(tmp_path / "again/web", tmp_path / "out", OPTIONS)
    first, second = run / "data_report", tmp_path / "out"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        one, other = (first / name).read_bytes(), (second / name).read_bytes()
        if name == "report.html":
            assert one != other
            one, other = (re.sub(rb"<!-- times -->.*<!-- end of times -->", b"", page, flags=re.DOTALL) for page in (one, other))
        if name == "report.json":
            assert json.loads(one)["times"] != json.loads(other)["times"]
            one, other = (json.dumps(json.loads(text) | {"times": None}) for text in (one, other))
        assert one == other, name


def test_cost_goes_with_the_whole(record: dict[str, Any]) -> None:
    crawl, stages = record["times"]["crawl"], record["times"]["stages"]
    hours = sum(stage["cpu_seconds"] for stage in stages) / 3600 / 0.001  # this build is assumed to be a thousandth
    assert crawl["core_hours"] == pytest.approx(hours)
    assert crawl["cost"] == pytest.approx(hours * 0.05)
    assert crawl["core_hours_low"] < hours < crawl["core_hours_high"]
    assert record["forecast"]["unit"] == "file"


def test_an_older_ledger_says_what_was_not_measured(tmp_path: Path) -> None:
    gone = ("cluster", "representative", "quality", "file", "robots", "personal_email", "duplicate_5grams", "second_language", "clean")
    make_web_folder(tmp_path / "web", rows=800, files=3, leave_out=gone, texts=False)
    (tmp_path / "web/speed.json").unlink()
    record = write_report(tmp_path / "web", tmp_path / "out", OPTIONS)
    assert set(gone) <= set(record["not_measured"])
    assert (record["clusters"], record["times"], record["forecast"]["duplicates"]) == (None, None, None)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Not measured in this build: file, robots, second_language, duplicate_5grams" in page
    assert "no recipe.toml" in page
    assert "Clusters were not measured" in page


def test_tokens_are_counted_where_shards_fit(run: Path, tmp_path: Path, record: dict[str, Any]) -> None:
    shutil.copytree(run / "web", tmp_path / "web")
    kept = record["outcomes"]["kept"]
    manifest = {
        "format": 1,
        "source": "web",
        "dtype": "uint16",
        "vocab_size": 512,
        "tokenizer_sha256": "0",
        "tokens": kept["text_bytes"] // 3,
        "documents": kept["documents"],
    }
    shard = {"tokens_file": "a", "ends_file": "b", "tokens_sha256": "", "ends_sha256": ""}
    for documents, counted in ((kept["documents"], True), (kept["documents"] + 1, False)):
        told = manifest | {"documents": documents, "shards": [shard | {"tokens": manifest["tokens"], "documents": documents}]}
        storage.write_json(tmp_path / "tokens/web/manifest.json", told)
        found = write_report(tmp_path / "web", tmp_path / "out", OPTIONS)
        assert found["funnel"][-1]["tokens_counted"] == counted
        assert found["tokens"]["bytes_per_token"] == pytest.approx(3 if counted else 4, rel=1e-3)
        assert ("another build" in found["tokens"]["note"]) != counted


def test_what_is_no_report_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="no part of a report and would be lost"):
        write_report(run / "web", tmp_path / "mine", OPTIONS)
    write_report(run / "web", tmp_path / "report", OPTIONS)
    (tmp_path / "report/letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"letter\.txt"):
        write_report(run / "web", tmp_path / "report", OPTIONS)
    assert (tmp_path / "mine/letter.txt").exists()
    (tmp_path / "report/letter.txt").unlink()
    write_report(run / "web", tmp_path / "report", OPTIONS)  # its own files are no strangers


def test_the_verb(
    run: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["phial", "data", "report", *words])
        with pytest.raises(SystemExit) as caught:
            phial.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    code, out, said = call(str(run / "web"), "--out", str(tmp_path / "out"), "--crawl-pages", "3000000", "--samples", "1")
    assert code == 0, said
    assert "6,000 records" in out
    assert "forecast for 3 million pages (this build is 0.20 % of them)" in out
    assert (tmp_path / "out/report.html").exists()
    for words, says in (
        ([str(tmp_path)], "neither a run"),
        ([str(run), "--sample-share", "1.5"], "--sample-share 1.5"),
        ([str(run), "--crawl-pages", "5999"], "--crawl-pages 5999: the whole crawl is said to be smaller than this build, which has 6,000"),
        ([str(run), "--crawl-pages", "5", "--crawl-bytes", "5"], "give one"),
    ):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert says in err
