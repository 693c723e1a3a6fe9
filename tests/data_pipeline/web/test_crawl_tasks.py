"""Files of a crawl as tasks: the same bytes as pages side by side, a folder that is gone is measured anew, failures are one line."""

import json
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.storage import sha256_of
from data_pipeline.web.build import Workers, build
from data_pipeline.web.crawl_tasks import measure_files
from data_pipeline.web.measure_crawl import CrawlFile
from data_pipeline.web.verbs import who_measures
from tests.data_pipeline.web.small_crawl import RECIPE, make_small, write_crawl

FILES = ("kept.parquet", "held_out.parquet", "dropped.parquet", "ledger.parquet", "funnel.json")


@pytest.mark.slow
def test_files_side_by_side_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl = write_crawl(tmp_path / "crawl", files=2)
    with monkeypatch.context() as patch:
        make_small(patch)  # other segments than the tasks make: those must not matter
        build(RECIPE, crawl, tmp_path / "pages/web", 0)
    journal = str(tmp_path / "journal")
    out = tmp_path / "files/web"
    first = build(RECIPE, crawl, out, 0, workers=Workers(2, journal))
    assert [sha256_of(out / name) for name in FILES] == [sha256_of(tmp_path / "pages/web" / name) for name in FILES]
    speed = json.loads((out / "speed.json").read_text())
    assert (speed["measured_by"], speed["workers"], speed["pages_measured"]) == ("files", 2, first["steps"][0]["documents"])
    assert speed["costs"]["core_seconds"] > 0
    again = build(RECIPE, crawl, out, 0, workers=Workers(2, journal))  # nothing is left: no worker is started
    assert again["speed"]["pages_measured"] == 0
    gone = CrawlFile(str(tmp_path / "none.warc.gz"), "none.warc.gz", "no such file")
    with pytest.raises(InputError, match=r"none\.warc\.gz: InputError: .*the same command goes on") as caught:
        measure_files(RECIPE, [gone], f"{journal}/measured", journal, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_first_recipe_once_more_measures_once_more(tmp_path: Path) -> None:
    """The journal knows the task of the first time, whose segments the other recipe has removed."""
    crawl = write_crawl(tmp_path / "crawl", files=2)
    other = RECIPE.model_copy(update={"mask_personal_data": False})
    first, _, again = (build(one, crawl, tmp_path / "run/web", 0, workers=Workers(1)) for one in (RECIPE, other, RECIPE))
    assert again["steps"] == first["steps"]
    told = [one["speed"] for one in (first, again)]
    assert told[0]["pages_measured"] == told[1]["pages_measured"] == first["steps"][0]["documents"]
    assert [one["costs"]["tasks"] for one in told] == [2, 2]  # this build's, not the journal's


def test_the_options_of_the_verb() -> None:
    assert who_measures(None, "") == Workers(None, "")
    assert who_measures(None, "s3://bucket/run") == Workers(1, "s3://bucket/run")
    assert who_measures("ray", "") == Workers("ray", "")
    assert who_measures("0", "s3://bucket/run") == Workers(0, "s3://bucket/run")
    for workers, says in (
        ("0", "needs --journal"),
        ("many", "a number of processes"),
        ("-1", "a number of processes"),
        ("9999", "0 to 1,024"),
    ):
        with pytest.raises(InputError, match=says):
            who_measures(workers, "")
