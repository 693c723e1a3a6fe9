"""Files and folders appear whole or not at all, whoever is killed when; `data_pipeline.storage` is held to the same."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modeling import whole_files
from modeling.errors import ModelError

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_live_writer_and_other_folders_have_is_left_alone(tmp_path: Path) -> None:
    """Only a dead writer's folder of exactly this name is removed, whatever marks the name has."""
    others = [".f[1].x.01234567.part", ".f[1].notes.part", ".f[1].0123456.part", ".f1.01234567.part", ".f[1].01234567.party"]
    for name in [*others, ".f[1].01234567.part", ".f[1].89abcdef.old"]:
        (tmp_path / name).mkdir()
    (tmp_path / "f[1]").mkdir()
    with whole_files.whole_folder(tmp_path / "f[1]") as first:
        (first / "first").touch()
        with whole_files.whole_folder(tmp_path / "f[1]") as second:
            (second / "second").touch()
        assert names(tmp_path / "f[1]") == ["second"]
        assert names(first) == ["first"]
    assert names(tmp_path / "f[1]") == ["first"]
    assert names(tmp_path) == sorted([*others, "f[1]"])


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from modeling.whole_files import whole_folder
replace = os.replace
def replace_and_die(source, target):
    replace(source, target)
    if Path(source).name == "f":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
with whole_folder(sys.argv[1] + "/f") as folder:
    (folder / "half").touch()
"""


def test_kill_9_between_the_two_renames(tmp_path: Path) -> None:
    """The old folder has a name that nothing reads then; the next writer puts it back before it writes."""
    with whole_files.whole_folder(tmp_path / "f") as folder:
        (folder / "old").touch()
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(tmp_path)], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "f").exists()
    with pytest.raises(ZeroDivisionError), whole_files.whole_folder(tmp_path / "f") as folder:
        raise ZeroDivisionError
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with whole_files.whole_folder(tmp_path / "f") as folder:
        (folder / "old").touch()
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if source.suffix == ".part":
            raise OSError(errno.EIO, "Input/output error", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"), whole_files.whole_folder(tmp_path / "f"):
        pass
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "f").mkdir()
    (tmp_path / "link").symlink_to("disk/f")
    with whole_files.whole_folder(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk" / "f") == ["new"]
    assert names(tmp_path / "disk") == ["f"]


def test_a_place_that_cannot_be_replaced_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name in ("mounted", ""))
    refused = {
        ".": "the working folder",
        "": "the working folder",
        "/": "a mount point",
        "mounted": "a mount point",
        "file": "a file stands there",
    }
    refused |= {"s3://bucket/f": "an address", Path("s3://bucket/f"): "an address"}
    for place, words in refused.items():
        with pytest.raises(ModelError, match=words), whole_files.whole_folder(place):
            raise AssertionError("entered")
    assert names(tmp_path) == ["file", "mounted"]


BOMBS = {"brackets": "[" * 200_000, "digits": "9" * 5000}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_pythons_reader_gives_up_on_is_one_line(tmp_path: Path, bomb: str) -> None:
    (tmp_path / "a.json").write_text(BOMBS[bomb], encoding="utf-8")
    with pytest.raises(ModelError, match=r"a\.json: not valid JSON") as error:
        whole_files.read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["o::7", "simplecache::a", "a b", os.fsdecode(b"b\xff")])
def test_a_local_name_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """fsspec reads `::` as a chain of file systems."""
    monkeypatch.chdir(tmp_path)
    whole_files.write_json(f"{name}/a.json", {"a": 1})
    assert whole_files.read_json(f"{name}/a.json") == {"a": 1}
    assert whole_files.sha256_of(f"{name}/a.json") == whole_files.sha256_of(tmp_path / name / "a.json")
    with whole_files.whole_folder(name) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["new"]
