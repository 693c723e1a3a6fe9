"""Measured segments: a build that was stopped anywhere goes on and gives the same bytes; thresholds read no page again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import InputError
from data_pipeline.storage import sha256_of
from data_pipeline.web.build import build
from data_pipeline.web.measure_crawl import CrawlMeasurer, crawl_files
from data_pipeline.web.reading import Page
from data_pipeline.web.recipe import Thresholds
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.segments import begun, facts_of, segment_path
from data_pipeline.web.warc_writer import WarcWriter
from data_pipeline.web.workers import Killed
from tests.data_pipeline.web.small_crawl import RECIPE, make_small, page, write_crawl

FILES = ("kept.parquet", "held_out.parquet", "dropped.parquet", "ledger.parquet", "funnel.json")


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crawl(tmp_path_factory.mktemp("crawl") / "crawl")


@pytest.fixture(scope="module")
def undisturbed(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "web"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        build(RECIPE, crawl, out, 0)
    return out


def hashes(web: Path) -> dict[str, str]:
    return {name: sha256_of(web / name) for name in FILES}


class Stopped(Exception):
    """A build is over here."""


def stop_after(count: int) -> Any:
    def progress(pages: int) -> None:
        if pages == count:
            raise Stopped

    return progress


@pytest.mark.parametrize("count", [1, 4, 9, 13])
def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(crawl: Path, undisturbed: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(Stopped):
        build(RECIPE, crawl, tmp_path / "web", 0, stop_after(count))
    assert not (tmp_path / "web").exists()
    funnel = build(RECIPE, crawl, tmp_path / "web", 0)
    assert hashes(tmp_path / "web") == hashes(undisturbed)
    total = funnel["steps"][0]["documents"]
    assert total - count <= funnel["speed"]["pages_measured"] <= total - count + 4  # the last whole segment was kept
    assert len(funnel["broken_files"]) == 1


def test_a_changed_threshold_reads_no_page_and_a_changed_measurement_every_one(crawl: Path, undisturbed: Path, tmp_path: Path) -> None:
    first = build(RECIPE, crawl, tmp_path / "web", 0)
    stricter = build(RECIPE.model_copy(update={"rules": Thresholds(min_words=100, min_sentences=0)}), crawl, tmp_path / "web", 0)
    assert stricter["speed"]["pages_measured"] == 0
    assert stricter["kept"]["documents"] == 0 < first["kept"]["documents"]
    again = build(RECIPE, crawl, tmp_path / "web", 0)
    assert again["speed"]["pages_measured"] == 0
    assert hashes(tmp_path / "web") == hashes(undisturbed)
    other = build(RECIPE.model_copy(update={"mask_personal_data": False}), crawl, tmp_path / "web", 0)
    assert other["speed"]["pages_measured"] == first["speed"]["pages_measured"] > 0


def test_only_files_that_changed_are_measured_again(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl")
    build(RECIPE, crawl, tmp_path / "web", 0)
    with open(crawl / "part-2.warc.gz", "wb") as stream:
        WarcWriter(stream, "made by a test").response("http://example.org/new", page(999).encode())
    assert build(RECIPE, crawl, tmp_path / "web", 0)["speed"]["pages_measured"] == 1
    files = crawl_files(RECIPE, [str(crawl / "part-0.warc.gz")])
    (crawl / "part-0.warc.gz").unlink()
    with pytest.raises(InputError, match="is not there any more"):
        crawl_files(RECIPE, [str(crawl / "part-0.warc.gz")])
    assert begun(str(tmp_path / "measured"), files[0].name, files[0].fingerprint).ends


def test_a_segment_that_is_damaged_is_measured_again(crawl: Path, undisturbed: Path, tmp_path: Path) -> None:
    build(RECIPE, crawl, tmp_path / "web", 0)
    files = crawl_files(RECIPE, [str(path) for path in sorted(crawl.iterdir())])
    damaged = Path(segment_path(str(tmp_path / "measured"), files[0].name, 1))
    damaged.write_bytes(damaged.read_bytes()[:-50])
    assert facts_of(str(damaged)) is None
    assert build(RECIPE, crawl, tmp_path / "web", 0)["speed"]["pages_measured"] == 5
    assert hashes(tmp_path / "web") == hashes(undisturbed)


def test_files_that_are_no_web_data_are_told_and_stop_nothing(crawl: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(crawl, tmp_path / "crawl", copy_function=shutil.copy2)
    (tmp_path / "crawl/part-0a.warc.gz").write_bytes(b"")
    (tmp_path / "crawl/part-9.warc.gz").write_bytes(bytes(range(256)) * 9)
    funnel = build(RECIPE, tmp_path / "crawl", tmp_path / "web", 0)
    whole = json.loads((undisturbed / "funnel.json").read_text())
    assert funnel["steps"] == whole["steps"]
    told = [line for line in funnel["broken_files"] if line.split(": ", 1)[1] not in str(whole["broken_files"])]
    assert ["an empty file" in told[0], "not a WARC file" in told[1], len(told)] == [True, True, 2]
    assert build(RECIPE, tmp_path / "crawl", tmp_path / "web", 0)["speed"]["pages_measured"] == 0
    assert len(pq.read_table(tmp_path / "web/ledger.parquet")) == whole["steps"][0]["documents"]


def test_files_measured_one_by_one_give_the_same_segments(crawl: Path, undisturbed: Path, tmp_path: Path) -> None:
    files = crawl_files(RECIPE, [str(path) for path in sorted(crawl.iterdir())])
    for file in reversed(files):
        CrawlMeasurer(RECIPE, str(tmp_path / "measured"), workers=1).measure([file])
    funnel = build(RECIPE, crawl, tmp_path / "web", 0)
    assert funnel["speed"]["pages_measured"] == 0
    assert hashes(tmp_path / "web") == hashes(undisturbed)


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on(crawl: Path, undisturbed: Path, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from data_pipeline.web import measure_crawl, segments
from data_pipeline.web.build import build
from data_pipeline.web.recipe import WebRecipe
segments.ROWS = 4
if __name__ == "__main__":
    build(WebRecipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), 0)
"""
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = [sys.executable, str(tmp_path / "program.py"), RECIPE.model_dump_json(), str(crawl), str(tmp_path / "web")]
    child = subprocess.Popen(command, env=environment)
    until = time.monotonic() + 120
    while not list((tmp_path / "measured").glob("*/*.parquet")) and time.monotonic() < until and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "measured").glob("*/*.parquet"))
    subprocess.run(command, env=environment, check=True)
    assert hashes(tmp_path / "web") == hashes(undisturbed)
    assert json.loads((tmp_path / "web/speed.json").read_text())["pages_measured"] > 0


def test_a_crawl_of_damaged_files_alone_says_what_is_wrong_and_keeps_the_build_before(tmp_path: Path) -> None:
    crawl, run = write_crawl(tmp_path / "crawl", files=2, pages=1), tmp_path / "run"
    (run / "web").mkdir(parents=True)
    (crawl / "part-0.warc.gz").unlink()
    with pytest.raises(InputError, match=r"an empty crawl: no page in it; 1 damages, the first: .*part-1.*truncated"):
        build(RECIPE, crawl, run / "web", 0)
    assert sorted(path.name for path in run.iterdir()) == ["measured", "web"]


def test_a_file_whose_name_is_no_unicode_is_measured(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl", files=2)
    os.rename(crawl / "part-1.warc.gz", os.fsencode(crawl) + b"/part-\xff.warc.gz")
    funnel = build(RECIPE, crawl, tmp_path / "run/web", 0)
    assert len(funnel["broken_files"]) == 1
    assert funnel["steps"][0]["documents"] == 17


def test_what_a_killed_page_held_is_counted(tmp_path: Path) -> None:
    measurer = CrawlMeasurer(RECIPE, str(tmp_path))
    for html, text in ((b"<p>12345", ""), (b"", "123456\N{COPYRIGHT SIGN}")):
        killed = measurer.killed(Killed(Page("a:0:1", "http://example.org/", html, "", text=text), 30.0))
        assert (killed.html_bytes, killed.page.html, killed.page.text) == (8, b"", "")
        assert killed.problem == Rejection("extraction_killed", "cpu_seconds", 30.0, 30.0)
