"""Documents between Parquet and JSON lines."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_pipeline.commands import data
from data_pipeline.errors import InputError
from data_pipeline.interchange.convert import Settings, convert
from data_pipeline.records import Document, read_documents


def test_json_lines_become_documents_and_come_back(tmp_path: Path) -> None:
    rows = [
        {"text": "Käse\nund Brot", "id": "a", "metadata": {"url": "https://example.org/a", "language": "de", "score": 0.5}},
        {"text": "plain", "source": "web"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    record = convert(tmp_path / "a.jsonl", tmp_path / "a.parquet", Settings())
    assert (record["documents"], record["characters"]) == (2, 18)
    assert record["notes"] == ["no place for score: left out"]
    expected = [
        Document(id="a", text="Käse\nund Brot", source="", url="https://example.org/a", language="de"),
        Document(id="00000001", text="plain", source="web"),
    ]
    assert list(read_documents(tmp_path / "a.parquet")) == expected
    convert(tmp_path / "a.parquet", tmp_path / "b.jsonl.gz", Settings())
    back = [json.loads(line) for line in gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).splitlines()]
    assert back[1] == {"id": "00000001", "text": "plain", "source": "web"}
    again = convert(tmp_path / "b.jsonl.gz", tmp_path / "c.parquet", Settings())
    assert again["digest"] == record["digest"]


def test_bad_documents_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(path: Path, line: str) -> None:
        with pytest.raises(InputError, match=line):
            convert(path, tmp_path / "out.parquet", Settings())
        assert not (tmp_path / "out.parquet").exists()

    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "whole"}\n{"text": "torn')
    refused(path, "line 2: not valid JSON")
    path.write_text('{"id": "a"}\n')
    refused(path, "row 0: a string 'text' is needed")
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "' + bytes(range(32, 127)) * 9)[:-12])
    refused(packed, "gzip|JSON")
    table = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": ["a"] * 500}), table)
    table.write_bytes(table.read_bytes()[:-9])
    refused(table, "not a whole Parquet file")
    refused(tmp_path / "d.parquet", "no such file")


def test_the_verb(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a pear"}\n')
    found = CliRunner().invoke(data, ["convert", str(tmp_path / "a.jsonl"), str(tmp_path / "a.parquet"), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["documents"] == 1
    found = CliRunner().invoke(data, ["convert", str(tmp_path / "a.jsonl"), str(tmp_path / "b.bin")])
    assert isinstance(found.exception, InputError)
