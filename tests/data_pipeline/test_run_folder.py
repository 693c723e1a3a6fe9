"""The run folder is made, or refused in one line."""

import errno
import tempfile
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder


def test_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "a/b")
    assert list(run.root.iterdir()) == []
    assert RunFolder.open(run.root) == run
    assert run.held_out == tmp_path / "a/b/synthetic/held_out"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(InputError, match="a file stands there"):
            RunFolder.open(tmp_path / folder)


def test_an_address_is_refused_and_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="s3://bucket/run: an address"):
        RunFolder.open("s3://bucket/run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(number, errno.errorcode[number], str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=f"cannot be written .{errno.errorcode[number]}.; choose another folder with --out"):
        RunFolder.open(tmp_path / "a")


def test_a_real_place_that_refuses() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which no user may write to")
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.open("/proc/phial-run")
