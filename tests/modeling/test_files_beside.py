"""The copy of what lies beside the weights: what cannot be copied is the error, by its name and number."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import phial
from modeling.errors import ModelError
from modeling.files_beside import copy_other_files, keep_files


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # an absolute path may be too long for a socket


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (pipe, "odd: neither a file nor a folder, but a pipe, a socket or a device"),
    "a socket": (bound_socket, "odd: neither a file nor a folder, but a pipe, a socket or a device"),
    "a link to nothing": (lambda path: path.symlink_to("gone.txt"), r"odd: a link to gone\.txt, which is not there"),
    "a link to a folder above": (lambda path: path.symlink_to(".."), "odd: a link to a folder that it lies in"),
}


@pytest.mark.parametrize("copy", [keep_files, copy_other_files])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_copied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, copy: Callable) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "inside").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    make, words = FAULTS[fault]
    make(tmp_path / "source" / "inside" / "odd")
    with pytest.raises(ModelError, match=words) as caught:
        copy(tmp_path / "source", tmp_path / "target")
    assert "\n" not in str(caught.value)


def test_links_are_followed_and_permissions_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("a")
    (tmp_path / "source" / "inside").mkdir(parents=True)
    (tmp_path / "source" / "inside").chmod(0o550)
    (tmp_path / "source" / "folder").symlink_to("../elsewhere")
    (tmp_path / "source" / "file").symlink_to("../elsewhere/a.txt")
    (tmp_path / "target").mkdir()
    copy_other_files(tmp_path / "source", tmp_path / "target")
    (tmp_path / "source" / "inside").chmod(0o750)
    assert (tmp_path / "target" / "folder" / "a.txt").read_text() == (tmp_path / "target" / "file").read_text() == "a"
    assert not (tmp_path / "target" / "folder").is_symlink()
    assert (tmp_path / "target" / "inside").stat().st_mode & 0o777 == 0o750


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system said it, with its number; `copytree` raises an error without one."""
    (tmp_path / "source" / "inside").mkdir(parents=True)
    (tmp_path / "source" / "inside" / "a.txt").write_text("a")
    (tmp_path / "target").mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.txt")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left") as caught:
        copy_other_files(tmp_path / "source", tmp_path / "target")
    assert phial.one_line(caught.value) is not None
