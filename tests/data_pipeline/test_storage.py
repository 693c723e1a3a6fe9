"""Storage: a file or folder appears complete or not at all, and what cannot be read is one line."""

import errno
import functools
import hashlib
import json
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

    def missing(_: str) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"pip install 'phial\[s3\]'"):
        storage.filesystem("s3://bucket/a")
