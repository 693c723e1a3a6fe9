"""Documents survive Parquet, and what is no document file is one line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import InputError
from data_pipeline.records import Document, read_documents, write_documents


def test_round_trip_over_several_row_groups(tmp_path: Path) -> None:
    documents = [Document(id=f"d{n}", text=f"tëxt \u2028\n{n}" * n, source="web", url=f"u{n}", kind="lesson") for n in range(25)]
    assert write_documents(tmp_path / "a.parquet", iter(documents), rows_per_group=10) == 25
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert list(read_documents(tmp_path / "a.parquet")) == documents


def test_no_documents(tmp_path: Path) -> None:
    assert write_documents(tmp_path / "a.parquet", []) == 0
    assert list(read_documents(tmp_path / "a.parquet")) == []


def test_other_columns_and_missing_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["t"], "score": [0.5], "url": pa.array([None], pa.string())}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == [Document(id="a", text="t", source="")]
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no column 'text'"):
        list(read_documents(tmp_path / "b.parquet"))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_documents(tmp_path / "none.parquet"))
    whole = tmp_path / "a.parquet"
    write_documents(whole, [Document(id="a", text="t" * 1000, source="web")])
    for content in (b"", b"not parquet at all", whole.read_bytes()[:-20]):
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(InputError, match="not a Parquet file") as error:
            list(read_documents(tmp_path / "b.parquet"))
        assert "\n" not in str(error.value)


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def texts():
        yield Document(id="a", text="t", source="web")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_documents(tmp_path / "a.parquet", texts())
    assert list(tmp_path.iterdir()) == []
