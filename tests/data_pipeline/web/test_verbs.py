"""The verbs as a user calls them: exit codes, one line for bad input, JSON."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

import phial
from data_pipeline.web.warc_writer import WarcWriter

PROSE = "<p>The miller remembers the flood, and the bridge that was built after it stands to this day with its seven arches. </p>"
MORE = (
    "<p>In the spring of that year the water rose by nine feet, and it carried off the mill, two barns and the old ford.</p>"
    "<p>Her son, who was ten, wrote it all down; his notes are kept in the town's archive, where anybody may read them.</p>"
)
PAGE = f"<html><body><article><h1>The bridge</h1>{PROSE}{MORE}</article></body></html>".encode()


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["phial", *words])
    with pytest.raises(SystemExit) as caught:
        phial.main()
    code = caught.value.code
    out, err = capsys.readouterr()
    return int(code) if isinstance(code, int) else 0, out, err


def warc(path: Path) -> Path:
    stream = io.BytesIO()
    writer = WarcWriter(stream, "a test")
    for number in range(3):
        writer.response(f"http://site.example/{number}", PAGE)
    path.write_bytes(stream.getvalue())
    return path


def test_extract_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(PAGE)
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(PAGE))
    (tmp_path / "c.html").write_bytes(b"")
    files = [str(tmp_path / name) for name in ("a.html", "b.html.gz", "c.html")]
    code, out, _ = call(monkeypatch, capsys, "data", "extract", *files, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["dropped"] for row in rows] == [None, None, "no_text"]
    assert rows[0]["text"] == rows[1]["text"]
    assert "The miller remembers" in rows[0]["text"]
    assert rows[0]["language"] == "en"
    assert all({"file", "text", "language", "dropped", "seconds"} <= row.keys() for row in rows)


def test_extract_of_a_missing_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(monkeypatch, capsys, "data", "extract", str(tmp_path / "none.html"))
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "none.html" in err


def test_collect_and_build_an_own_crawl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, _ = call(monkeypatch, capsys, "data", "collect", str(run / "crawl"), "--warc", str(warc(tmp_path / "own.warc.gz")))
    assert code == 0
    assert "1 WARC file(s)" in out
    settings = ["--set", "web.workers=1", "--set", "web.rules.min_words=10", "--set", "web.rules.min_sentences=0"]
    code, out, _ = call(monkeypatch, capsys, "data", "build", "demo", "--out", str(run), *settings)
    assert code == 0
    assert "exact_duplicate" in out
    assert "C4's brace rule is off" in out
    assert sorted(one.name for one in (run / "web").iterdir()) == [
        "dropped.parquet",
        "funnel.json",
        "held_out.parquet",
        "kept.parquet",
        "ledger.parquet",
        "speed.json",
    ]
    assert (run / "recipe.toml").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "collect", "OUT", "--warc", "none.warc"], "no such file"),
        (["data", "collect", "OUT", "--set", "collect.spam=-1"], "spam"),
        (["data", "collect", "OUT", "--set", "collect.spams=1"], "no setting"),
        (["data", "build", "demo", "--out", "OUT"], "no crawl there"),
        (["data", "build", "demo", "--out", "OUT", "--set", "web.rules.min_words=200000"], "min_words"),
        (["data", "build", "demo", "--out", "OUT", "--set", 'web.languages=["english"]'], "no language 'english' is told apart"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], says: str
) -> None:
    code, _, err = call(monkeypatch, capsys, *[str(tmp_path / "out") if word == "OUT" else word for word in words])
    assert code == 2
    assert says in err
    assert err.strip().count("\n") == 0
