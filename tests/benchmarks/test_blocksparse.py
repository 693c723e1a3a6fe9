"""The blocksparse benchmark runs and writes what it counted and timed."""

from pathlib import Path

from benchmarks import blocksparse
from data_pipeline.storage import read_json


def test_it_writes_counts_and_ratios(tmp_path: Path) -> None:
    blocksparse.main(["--tokens", "256", "--rounds", "1", "--out", str(tmp_path / "out.json")])
    found = read_json(tmp_path / "out.json")
    assert found["pairs"]["needed"] == 32 * 256 * 257 // 2  # so short a row is plainly causal
    assert len(found["rows"]) == 4
    assert all(row["times_faster_than_dense"] > 0 for row in found["rows"])
