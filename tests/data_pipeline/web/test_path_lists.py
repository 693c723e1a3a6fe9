"""Lists of crawl files: relative and whole addresses, globs, prefixes, and lines that are none."""

import gzip
import io
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.collect import collect
from data_pipeline.web.path_lists import COMMON_CRAWL, default_prefix, listed
from data_pipeline.web.recipe import CollectRecipe
from data_pipeline.web.warc_writer import WarcWriter


def warc(path: Path) -> str:
    stream = io.BytesIO()
    WarcWriter(stream, "a test").response("http://site.example/", b"<html><body><p>x</p></body></html>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    return str(path)


def test_lines_become_addresses(tmp_path: Path) -> None:
    one, two = warc(tmp_path / "one.warc.gz"), warc(tmp_path / "in/two.warc.gz")
    text = f"# a comment\none.warc.gz\n\nfile://{tmp_path}/in/*.gz\nhttps://other.example/three.warc.gz\n{one}\n"
    (tmp_path / "w.paths.gz").write_bytes(gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode()))
    assert listed(str(tmp_path / "w.paths.gz")) == [one, two, "https://other.example/three.warc.gz"]
    (tmp_path / "cc.paths").write_text("crawl-data/CC-MAIN-2024-22/a.warc.gz\n")
    assert listed(str(tmp_path / "cc.paths"), "s3://commoncrawl/") == ["s3://commoncrawl/crawl-data/CC-MAIN-2024-22/a.warc.gz"]
    assert default_prefix("https://data.commoncrawl.org/crawl-data/x/warc.paths.gz") == COMMON_CRAWL
    assert default_prefix("s3://commoncrawl/crawl-data/x/warc.paths.gz") == "s3://commoncrawl/"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"none.warc.gz\n", "line 1: .*no such file"),
        (b"# x\n\x00\x01\n", "line 2: a path or an address is needed"),
        (b"<html>", "line 1"),
        (b"other.paths\n", "a list within a list"),
        (b"\n", "an empty list"),
        (gzip.compress(b"one.warc.gz\n", mtime=0)[:-9], "truncated|cannot be read"),
    ],
)
def test_wrong_lists(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "w.paths").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        listed(str(tmp_path / "w.paths"))
    assert "w.paths" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_collect_takes_lists_and_several_patterns(tmp_path: Path) -> None:
    one, two = warc(tmp_path / "one.warc.gz"), warc(tmp_path / "in/two.warc.gz")
    (tmp_path / "w.paths").write_text("one.warc.gz\n")
    recipe = CollectRecipe(warc=(str(tmp_path / "w.paths"), str(tmp_path / "in/*.gz")))
    assert collect(recipe, tmp_path / "crawl", 0)["sources"] == [one, two]
    assert CollectRecipe(warc="a").warc == ("a",)  # type: ignore[arg-type]
    assert CollectRecipe(warc="").warc == ()  # type: ignore[arg-type]


def test_only_a_sample_of_remote_files_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.paths").write_text("".join(f"a/{number}.warc.gz\n" for number in range(1000)))
    seen: list[str] = []
    monkeypatch.setattr("data_pipeline.web.warc_reader.has_pages", lambda path: bool(seen.append(path)) or True)
    record = collect(CollectRecipe(warc=(str(tmp_path / "w.paths"),), prefix="https://host.example"), tmp_path / "crawl", 0)
    assert len(record["sources"]) == 1000
    assert 1 < len(seen) <= 8
    assert record["sources"][0] == "https://host.example/a/0.warc.gz"
