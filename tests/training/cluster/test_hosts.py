"""Hostfiles, and lines that are none."""

from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from training.cluster.hosts import Host, read_hosts


def test_hosts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# machines\nnode-a slots=8\n\n10.0.0.2  slots = 4 # the small one\n")
    assert read_hosts(path) == [Host("node-a", 8), Host("10.0.0.2", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node-a", "line 1: `name slots=N` is needed, N from 1 to 9999, got 'node-a'"),
        ("a slots=2\nb slots=0", "line 2: `name slots=N` is needed"),
        ("a slots=2\na slots=2", "line 2: a is there already"),
        ("# none\n", "no host"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_hosts(path)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_hosts(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_hosts(tmp_path)
