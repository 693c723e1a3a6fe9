"""Storage: a file or folder appears complete or not at all, and what cannot be read is one line."""

import errno
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

import phial
from data_pipeline import storage
from data_pipeline.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_raises_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with storage.atomic_write(path) as stream:
            stream.write(b"half")
            stream.flush()
            assert path.read_text(encoding="utf-8") == "old"  # not seen before it is complete
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_that_raises_leaves_the_old_one(tmp_path: Path) -> None:
    def write(content: str, fault: bool = False) -> None:
        with storage.atomic_folder(tmp_path / "f") as folder:
            (folder / content).write_text(content, encoding="utf-8")
            if fault:
                raise ZeroDivisionError

    write("old")
    with pytest.raises(ZeroDivisionError):
        write("half", fault=True)
    assert names(tmp_path / "f") == ["old"]
    write("new")
    assert names(tmp_path / "f") == ["new"]
    assert names(tmp_path) == ["f"]


KILLED = """
import os, signal, sys
from data_pipeline.storage import atomic_folder, atomic_write
with atomic_write(sys.argv[1] + "/a.txt") as stream, atomic_folder(sys.argv[1] + "/f") as folder:
    stream.write(b"half" * 100_000)
    stream.flush()
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    with storage.atomic_folder(tmp_path / "f") as folder:
        (folder / "old").touch()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
    assert names(tmp_path / "f") == ["old"]
    assert len(names(tmp_path)) == 4  # the two, and what the dead process left beside them
    with storage.atomic_folder(tmp_path / "f") as folder:  # the next writer of the folder sweeps up
        (folder / "new").touch()
    assert names(tmp_path / "f") == ["new"]
    assert not [name for name in names(tmp_path) if name.startswith(".f.")]


def test_what_a_live_writer_and_other_folders_have_is_left_alone(tmp_path: Path) -> None:
    """Only a dead writer's folder of exactly this name is removed, whatever marks the name has."""
    others = [".f[1].x.01234567.part", ".f[1].notes.part", ".f[1].0123456.part", ".f1.01234567.part", ".f[1].01234567.party"]
    for name in [*others, ".f[1].01234567.part", ".f[1].89abcdef.old"]:
        (tmp_path / name).mkdir()
    (tmp_path / "f[1]").mkdir()
    with storage.atomic_folder(tmp_path / "f[1]") as first:
        (first / "first").touch()
        with storage.atomic_folder(tmp_path / "f[1]") as second:
            (second / "second").touch()
        assert names(tmp_path / "f[1]") == ["second"]
        assert names(first) == ["first"]
    assert names(tmp_path / "f[1]") == ["first"]
    assert names(tmp_path) == sorted([*others, "f[1]"])


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from data_pipeline.storage import atomic_folder
replace = os.replace
def replace_and_die(source, target):
    replace(source, target)
    if Path(source).name == "f":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
with atomic_folder(sys.argv[1] + "/f") as folder:
    (folder / "half").touch()
"""


def test_kill_9_between_the_two_renames(tmp_path: Path) -> None:
    """The old folder has a name that nothing reads then; the next writer puts it back before it writes."""
    with storage.atomic_folder(tmp_path / "f") as folder:
        (folder / "old").touch()
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(tmp_path)], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "f").exists()
    with pytest.raises(ZeroDivisionError), storage.atomic_folder(tmp_path / "f") as folder:
        raise ZeroDivisionError
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage.atomic_folder(tmp_path / "f") as folder:
        (folder / "old").touch()
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if source.suffix == ".part":
            raise OSError(errno.EIO, "Input/output error", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"), storage.atomic_folder(tmp_path / "f"):
        pass
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "f").mkdir()
    (tmp_path / "link").symlink_to("disk/f")
    with storage.atomic_folder(tmp_path / "link") as folder:
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
        with pytest.raises(InputError, match=words), storage.atomic_folder(place):
            raise AssertionError("entered")
    assert names(tmp_path) == ["file", "mounted"]


BOMBS = {"brackets": "[" * 200_000, "digits": "9" * 5000}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_pythons_reader_gives_up_on_is_one_line(tmp_path: Path, bomb: str) -> None:
    (tmp_path / "a.json").write_text(BOMBS[bomb], encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON") as error:
        storage.read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["o::7", "simplecache::a", "a b", os.fsdecode(b"b\xff")])
def test_a_local_name_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """fsspec reads `::` as a chain of file systems."""
    monkeypatch.chdir(tmp_path)
    storage.write_json(f"{name}/a.json", {"a": 1})
    assert storage.read_json(f"{name}/a.json") == {"a": 1}
    assert storage.sha256_of(f"{name}/a.json") == storage.sha256_of(tmp_path / name / "a.json")
    with storage.atomic_folder(name) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["new"]


def test_a_file_system_that_refuses_is_one_line() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which no user may write to, as the refusing file system")
    with pytest.raises(OSError, match="/proc") as error, storage.atomic_write("/proc/no-such-place/a.txt"):
        pass
    assert isinstance(error.value, FileNotFoundError | PermissionError)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, 1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        storage.write_json(path, 2)
    line = phial.one_line(error.value)
    assert line is not None
    assert "No space left" in line
    monkeypatch.undo()
    assert storage.read_json(path) == 1
    assert names(tmp_path) == ["a.json"]


def test_json_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        storage.read_json(tmp_path / "none.json")
    for number, content in enumerate([b"{", b"\xff\xfe", b""]):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match="not valid JSON") as error:
            storage.read_json(path)
        assert "\n" not in str(error.value)


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "é\u2028\n"}, {"n": 1}]
    assert storage.write_json_lines(path, rows) == 2
    assert list(storage.read_json_lines(path)) == rows
    path.write_text('{"a": 1}\n\n{"a": \n', encoding="utf-8")
    with pytest.raises(InputError, match="line 3: not valid JSON"):
        list(storage.read_json_lines(path))
    for bomb in BOMBS.values():
        path.write_text(f'{{"a": 1}}\n{bomb}\n', encoding="utf-8")
        with pytest.raises(InputError, match="line 2: not valid JSON"):
            list(storage.read_json_lines(path))
    path.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: a JSON object is needed, got list"):
        list(storage.read_json_lines(path))
    with pytest.raises(InputError, match="no such file"):
        list(storage.read_json_lines(tmp_path / "none.jsonl"))


def test_expand(tmp_path: Path) -> None:
    for name in ("b.warc", "a.warc", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.warc").mkdir()
    assert [Path(one).name for one in storage.expand(f"{tmp_path}/*.warc")] == ["a.warc", "b.warc"]
    assert [Path(one).name for one in storage.expand(str(tmp_path / "c.txt"))] == ["c.txt"]
    assert storage.expand("https://example.org/a?b=*") == ["https://example.org/a?b=*"]
    for pattern, says in (("*.none", "no such file"), ("none.warc", "no such file"), ("d.warc", "a folder; files are needed")):
        with pytest.raises(InputError, match=says):
            storage.expand(f"{tmp_path}/{pattern}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """This test's folder over http on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_http(tmp_path: Path, server: str) -> None:
    content = json.dumps({"a": list(range(5000))}).encode()
    (tmp_path / "a.json").write_bytes(content)
    assert storage.read_json(f"{server}/a.json") == json.loads(content)
    assert storage.sha256_of(f"{server}/a.json") == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match="no such file"):
        storage.read_json(f"{server}/none.json")


def test_memory_store() -> None:
    path = "memory://test-storage/x/a.json"
    storage.write_json(path, {"a": 1})
    assert storage.read_json(path) == {"a": 1}
    (found,) = storage.expand("memory://test-storage/x/*.json")
    assert storage.read_json(found) == {"a": 1}
    fsspec.filesystem("memory").rm("/test-storage", recursive=True)


def test_an_unknown_protocol_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nosuch"):
        storage.filesystem("nosuch://bucket/a")

    def closed(_: str) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(fsspec.core, "url_to_fs", closed)
    with pytest.raises(InputError, match="ftp://host/a: cannot be looked up: ConnectionRefusedError"):
        storage.filesystem("ftp://host/a")

    def missing(_: str) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"pip install 'phial\[s3\]'"):
        storage.filesystem("s3://bucket/a")
