"""`phial data decontaminate` on plain files: rows go to clean/ or contaminated/, and items to clean, dirty and unchecked."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_pipeline.commands import data
from data_pipeline.errors import InputError


def words(count: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choice("abcdefghij") for _ in range(9)) for _ in range(count))


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks"
    (folder / "suite").mkdir(parents=True)
    rows = [{"id": f"q{number}", "family": "f", "question": words(20, number), "answer": words(2, 90 + number)} for number in range(4)]
    rows.append({"id": "q4", "family": "f", "question": "Why?", "answer": "No"})
    (folder / "exercises.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite" / "test.jsonl").write_text(json.dumps({"question": words(20, 50), "answer": "x"}) + "\n")
    return folder


def test_rows_are_routed_and_items_told_apart(benchmarks: Path, tmp_path: Path) -> None:
    table = pa.table({"text": [f"{words(30, 7)} {words(20, 1)}", words(50, 8), None], "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = [{"id": "x", "text": words(40, 9), "k": 1}, {"id": "y", "text": f"{words(20, 2)}"}, {"id": "z", "text": words(20, 50)}]
    raw = [json.dumps(row).encode() + b"\n" for row in lines]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(raw)))
    out = tmp_path / "out"
    command = [
        "decontaminate",
        str(tmp_path / "a.parquet"),
        str(tmp_path / "b.jsonl.gz"),
        "--benchmarks",
        str(benchmarks),
        "--out",
        str(out),
    ]
    found = CliRunner().invoke(data, [*command, "--json"])
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert json.loads((out / "contamination.json").read_text()) == record
    assert (record["documents"], record["contaminated_documents"]) == (6, 3)
    exercises = record["benchmarks"]["exercises"]
    assert {name: exercises[name] for name in ("items", "clean", "dirty", "unchecked", "share", "document_ids")} == {
        "items": 5,
        "clean": 2,
        "dirty": 2,
        "unchecked": 1,
        "share": 0.4,
        "document_ids": ["a.parquet:0", "b.jsonl.gz:y"],
    }
    split = json.loads((out / "split" / "exercises.json").read_text())
    assert split["splits"] == {"": {"clean": ["q0", "q3"], "dirty": ["q1", "q2"], "unchecked": ["q4"]}}
    assert json.loads((out / "split" / "suite.json").read_text())["splits"]["test"]["dirty"] == ["00000"]
    assert pq.read_table(out / "clean" / "a.parquet")["n"].to_pylist() == [2, 3]
    assert pq.read_table(out / "contaminated" / "a.parquet")["n"].to_pylist() == [1]
    assert gzip.decompress((out / "clean" / "b.jsonl.gz").read_bytes()) == raw[0]
    assert gzip.decompress((out / "contaminated" / "b.jsonl.gz").read_bytes()) == raw[1] + raw[2]
    hits = [json.loads(line) for line in (out / "hits.jsonl").read_text().splitlines()]
    assert [(hit["document"], hit["task"], hit["id"], hit["reason"]) for hit in hits] == [
        ("a.parquet:0", "exercises", "q1", "exact"),
        ("b.jsonl.gz:y", "exercises", "q2", "exact"),
        ("b.jsonl.gz:z", "suite", "00000", "exact"),
    ]
    written = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    told = CliRunner().invoke(data, command)
    assert "exercises: 2 of 5 items (40.0%) in 2 documents" in told.stdout
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == written
    looser = CliRunner().invoke(data, [*command, "--json", "--set", "web.decontamination.words=25"])
    assert json.loads(looser.stdout)["settings"]["words"] == 25


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", b"words", ".parquet, .jsonl or .jsonl.gz is needed"),
        ("a.jsonl", b'{"id": 1}\n', "a string 'text' is needed"),
        ("a.jsonl", b'{"text": "torn', "line 1: not valid JSON"),
        ("a.jsonl.gz", b"\x1f\x8bno gzip", "damaged gzip data"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
    ],
)
def test_bad_files_are_refused_in_one_line(name: str, content: bytes, line: str, benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    command = ["decontaminate", str(tmp_path / name), "--benchmarks", str(benchmarks), "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(data, command).exception
    assert isinstance(error, InputError)
    assert line in str(error)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    out = tmp_path / "out"
    command = ["decontaminate", str(tmp_path / "a.jsonl"), "--benchmarks", str(benchmarks), "--out", str(out)]
    for _ in range(2):  # what the verb wrote itself may be written again
        assert CliRunner().invoke(data, command).exit_code == 0
    (out / "letter.txt").write_text("dear")
    error = CliRunner().invoke(data, command).exception
    assert isinstance(error, InputError)
    assert "holds 'letter.txt', which is no part of decontaminated files" in str(error)
    assert (out / "letter.txt").read_text() == "dear"


def test_bad_settings_are_refused_in_one_line(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    command = ["decontaminate", str(tmp_path / "a.jsonl"), "--benchmarks", str(benchmarks), "--out", str(tmp_path / "out")]
    refused = {"web.held_out=1": "KEY=VALUE is needed", "web.decontamination.words=1": "words = 1", "web.decontamination.no=1": "'no'"}
    for override, line in refused.items():
        error = CliRunner().invoke(data, [*command, "--set", override]).exception
        assert isinstance(error, InputError)
        assert line in str(error)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.jsonl").write_text('{"text": "a"}\n')
    error = CliRunner().invoke(data, [command[0], str(tmp_path / "b" / "a.jsonl"), *command[1:]]).exception
    assert "two files of that name" in str(error)
