"""Parquet, JSON lines and HTML files: pages in order, bad rows counted, and a reader goes on from any place."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.reading import Broken, Page, ReadLimits, read_records

LIMITS = ReadLimits(max_page_bytes=10_000)


def all_of(path: Path) -> list[Page | Broken]:
    found = list(read_records(str(path), limits=LIMITS))
    for number, one in enumerate(found):
        assert list(read_records(str(path), limits=LIMITS, start=one.place)) == found[number + 1 :], number
    return found


def test_parquet_by_row_group(tmp_path: Path) -> None:
    texts = [f"text {number}" if number % 7 else None for number in range(25)]
    texts[5] = "x" * 20_000
    table = pa.table({"text": texts, "url": [f"http://s.example/{n}" for n in range(25)], "license": ["cc"] * 25, "other": range(25)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    found = all_of(tmp_path / "a.parquet")
    assert [one.text for one in found if isinstance(one, Page) and not one.problem] == [one for one in texts if one and len(one) < 100]
    assert [one.problem for one in found if isinstance(one, Page) and one.problem] == ["too_large"]
    assert sum(isinstance(one, Broken) for one in found) == 4
    assert found[1].metadata == {"licence": "cc"}  # type: ignore[union-attr]
    assert (found[12].place.offset, found[12].place.inside) == (1, 3)


def test_parquet_with_a_bad_row_group(tmp_path: Path) -> None:
    table = pa.table({"content": [b"<html><body><p>%d</p></body></html>" % number for number in range(30)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, compression="zstd", use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    end = column.data_page_offset + column.total_compressed_size
    data[end - 40 : end] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    found = all_of(tmp_path / "a.parquet")
    assert len([one for one in found if isinstance(one, Page)]) == 20
    assert sum(isinstance(one, Broken) for one in found) == 1
    assert found[-1].place.record == 30
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    for name, content, says in (("b.parquet", None, "no column of text"), ("c.parquet", b"PAR1" + b"x" * 99, "not a readable Parquet")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            list(read_records(str(tmp_path / name)))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coding", ["plain", "gzip", "members", "zstd"])
def test_json_lines(tmp_path: Path, coding: str) -> None:
    rows: list[bytes] = [json.dumps({"text": f"text {n}", "url": f"http://s.example/{n}", "date": "2024"}).encode() for n in range(9)]
    rows[2:4] = [b"{broken", b'{"text": "bad \xff utf-8 \\ud800"}']
    rows[5:7] = [json.dumps({"text": " ".join(map(str, range(30_000)))}).encode(), b"[1]"]
    data = b"\n".join(rows) + b"\n"
    if coding == "gzip":
        data = gzip.compress(data)
    elif coding == "members":
        data = b"".join(gzip.compress(data[place : place + 3000]) for place in range(0, len(data), 3000))
    elif coding == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    (tmp_path / "a.jsonl").write_bytes(data)
    found = all_of(tmp_path / "a.jsonl")
    kinds = ["broken" if isinstance(one, Broken) else one.problem for one in found]
    assert kinds == ["", "", "broken", "", "", "too_large", "broken", "", ""]
    assert found[3].text == "bad \ufffd utf-8 ?"  # type: ignore[union-attr]
    assert found[0].fetched == "2024"  # type: ignore[union-attr]


def test_a_cut_json_lines_file(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"html": f"<p>{number} {hash(number)}"}) + "\n" for number in range(500)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows)[:-100])
    found = list(read_records(str(tmp_path / "a.jsonl.gz")))
    assert sum(isinstance(one, Page) for one in found) > 300
    assert "truncated" in next(one.line for one in reversed(found) if isinstance(one, Broken))


def test_html_files_and_unknown_ones(tmp_path: Path) -> None:
    html = b"<!DOCTYPE html><html><body><p>x</p></body></html>"
    for name, data in (("a.html", html), ("a.htm.gz", gzip.compress(html)), ("noname", html)):
        (tmp_path / name).write_bytes(data)
        (page,) = all_of(tmp_path / name)
        assert isinstance(page, Page)
        assert page.html == html
    (tmp_path / "big.html").write_bytes(html + b" " * 20_000)
    assert all_of(tmp_path / "big.html")[0].problem == "too_large"  # type: ignore[union-attr]
    for name, data in (
        ("a.png", b"\x89PNG" * 99),
        ("a.gz", gzip.compress(b"just text")),
        ("empty", b""),
        ("a.warc.gz", b"\x1f\x8b\x08\x00zzzz" * 9),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="WARC, WET, ARC, HTML, Parquet or JSON lines") as caught:
            list(read_records(str(tmp_path / name)))
        assert "\n" not in str(caught.value)
