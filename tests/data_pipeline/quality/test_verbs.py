"""The verbs as a user calls them: the whole way on generated pages, JSON, and one line for bad input."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import phial


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["phial", "data", "quality", *words])
    with pytest.raises(SystemExit) as caught:
        phial.main()
    out, err = capsys.readouterr()
    return caught.value.code if isinstance(caught.value.code, int) else 0, out, err


def test_generate_train_score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    documents, labels, model = (str(tmp_path / name) for name in ("g/documents.parquet", "g/labels.jsonl", "model"))
    assert call(monkeypatch, capsys, "generate", str(tmp_path / "g"), "--pages", "400", "--sites", "30")[0] == 0
    settings = ["--set", "bits=18", "--set", "penalties=[1e-4]", "--set", "tolerance=1e-3"]
    code, out, _ = call(monkeypatch, capsys, "train", labels, "--documents", documents, "--out", model, *settings)
    assert code == 0
    assert "F1" in out
    code, out, _ = call(monkeypatch, capsys, "score", documents, "--model", model, "--out", str(tmp_path / "s.parquet"), "--json")
    table = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert json.loads(out)["documents"] == 400 == len(table)
    assert call(monkeypatch, capsys, "score", documents, "--model", model, "--out", str(tmp_path / "s.jsonl"))[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [one["id"] for one in rows] == [one["id"] for one in table]
    assert [one["score"] for one in rows] == pytest.approx([one["score"] for one in table], abs=1e-6)

    before = (tmp_path / "g/documents.parquet").read_bytes()
    for words, said in (
        (["score", documents, "--model", model, "--out", documents], "the documents themselves"),
        (["score", "none", "--model", model, "--out", str(tmp_path / "n.parquet")], "none: no such file"),
    ):
        code, out, err = call(monkeypatch, capsys, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert (tmp_path / "g/documents.parquet").read_bytes() == before
    (tmp_path / "model/letter.txt").write_text("dear")
    code, _, err = call(monkeypatch, capsys, "train", labels, "--documents", documents, "--out", model, *settings)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds 'letter.txt', which is no part of a quality model" in err
    assert (tmp_path / "model/letter.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "none.jsonl", "--out", "m"], "none.jsonl: no such file"),
        (["train", "none.jsonl", "--out", "m", "--set", "bits=30"], "bits = 30: input should be less than or equal to 22"),
        (["train", "none.jsonl", "--out", "m", "--set", "bytes=3"], "has no setting 'bytes'; there is bits"),
        (["train", "none.jsonl", "--out", "m", "--set", "a.bits=3"], "name=value is needed"),
        (["score", "none.parquet", "--model", "none", "--out", "s.parquet"], "none/manifest.json: no such file"),
        (["audit", "none", "--documents", "d", "--labels", "l", "--out", "o"], "none/manifest.json: no such file"),
        (["label", "d", "--endpoint", "nowhere", "--model", "m", "--out", "l"], "--endpoint nowhere"),
        (["label", "d", "--endpoint", "http://h/v1", "--model", "m", "--out", "l", "--key-variable", "PHIAL_NO_KEY"], "PHIAL_NO_KEY"),
        (["label", "none", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--out", "l"], "none: no such file"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
