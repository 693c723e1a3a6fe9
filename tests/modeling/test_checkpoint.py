"""Checkpoints: any number of ranks, complete or not there, corruption named, and a killed writer loses nothing that was complete."""

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.checkpoint import Checkpoint, finish_checkpoint, latest_checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from modeling.checkpoint_parts import PartWriter
from modeling.errors import ModelError
from modeling.whole_files import read_json, sha256_of, write_json


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}"


def some_tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(12.0).view(3, 4)
    return {
        "matrix": torch.randn(5, 3),
        "half": torch.randn(4).bfloat16(),
        "step": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "view": shared[:, 1:3],
        "same memory": shared,
    }


def test_what_was_written_is_read(folder: str) -> None:
    tensors = some_tensors()
    write_checkpoint(f"{folder}/step-1", tensors, {"step": 1, "note": "é"})
    found, metadata = read_checkpoint(f"{folder}/step-1")
    assert metadata == {"step": 1, "note": "é"}
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert list(read_checkpoint(f"{folder}/step-1", names=["half"])[0]) == ["half"]


def test_writing_again_replaces_and_leaves_no_old_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"x": torch.zeros(3), "y": torch.ones(2)}, {"turn": 1})
    write_checkpoint(tmp_path / "a", {"x": torch.ones(3)}, {"turn": 2})
    found, metadata = read_checkpoint(tmp_path / "a")
    assert metadata == {"turn": 2}
    assert torch.equal(found["x"], torch.ones(3))
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".json", ".safetensors"]


def test_ranks_write_slices_and_any_box_is_read(folder: str) -> None:
    whole = torch.arange(48.0).view(8, 6)
    for rank, (rows, columns) in enumerate([((0, 3), (0, 6)), ((3, 8), (0, 2)), ((3, 8), (2, 6))]):
        with PartWriter(f"{folder}/step-2", rank, file_bytes=100) as writer:
            writer.add("w", whole[rows[0] : rows[1], columns[0] : columns[1]], whole.shape, (rows[0], columns[0]))
            if rank == 1:
                writer.add("bias", torch.arange(40.0))
    finish_checkpoint(f"{folder}/step-2", 3, {})
    checkpoint = Checkpoint(f"{folder}/step-2")
    assert checkpoint.shape("w") == (8, 6)
    for begin in range(8):
        for end in range(begin, 9):
            box = checkpoint.read("w", (begin, 1), (end - begin, 4))
            assert torch.equal(box, whole[begin:end, 1:5])
    assert torch.equal(checkpoint.read("bias", (7,), (5,)), torch.arange(7.0, 12.0))
    with pytest.raises(ModelError, match="no box of sizes"):
        checkpoint.read("w", (5, 0), (4, 6))


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([((0,), 3)], "hold 3 numbers where the shape"),
        ([((0,), 3), ((4,), 3)], "lies outside the shape"),
        ([((0,), 3), ((2,), 3)], "overlap"),
    ],
)
def test_parts_that_do_not_tile_are_refused(tmp_path: Path, pieces: list, words: str) -> None:
    for rank, (offsets, size) in enumerate(pieces):
        with PartWriter(tmp_path / "a", rank) as writer:
            writer.add("w", torch.zeros(size), (6,), offsets)
    with pytest.raises(ModelError, match=words):
        finish_checkpoint(tmp_path / "a", len(pieces), {})
    assert latest_checkpoint(tmp_path) is None


def test_corruption_and_loss_are_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"x": torch.arange(100.0)}, {})
    (part,) = (tmp_path / "a").glob("part-*")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{part.name} is corrupt: its SHA-256"):
        read_checkpoint(tmp_path / "a")
    part.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=rf"{part.name} is corrupt: \d+ bytes where the manifest says"):
        Checkpoint(tmp_path / "a")
    part.unlink()
    with pytest.raises(ModelError, match=rf"{part.name} is missing"):
        Checkpoint(tmp_path / "a")


def test_what_is_no_checkpoint_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint folder"):
        Checkpoint(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no manifest\.json; the checkpoint was not finished"):
        Checkpoint(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        Checkpoint(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(ModelError, match="format 1 is needed, got format 9"):
        Checkpoint(tmp_path)
    with pytest.raises(ModelError, match="must be JSON values"):
        write_checkpoint(tmp_path / "b", {}, {"when": object()})
    assert not (tmp_path / "b").exists()


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Writes a checkpoint whose manifest is changed afterwards."""
    write_checkpoint(folder, {"x": torch.arange(6.0).view(2, 3)}, {"step": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_part(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["tensors"]["x"]["parts"][0].update(changes)


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "files are a list": (lambda m: m.update(files=[]), r"files must be a table, got \[\]"),
    "no metadata": (lambda m: m.update(metadata=None), "metadata must be a table, got None"),
    "tensors are text": (lambda m: m.update(tensors="x"), "tensors must be a table, got 'x'"),
    "a file without facts": (lambda m: m["files"].update(a=3), "with its bytes and sha256 is needed, got 'a': 3"),
    "a file elsewhere": (lambda m: m["files"].update({"../a": {"bytes": 3, "sha256": ""}}), r"a file of the folder .* got '\.\./a'"),
    "a tensor without a shape": (lambda m: m["tensors"]["x"].pop("shape"), "tensor 'x' needs a shape"),
    "a shape of fractions": (lambda m: m["tensors"]["x"].update(shape=[2, 1.5]), "tensor 'x' needs a shape"),
    "no parts": (lambda m: m["tensors"]["x"].update(parts=None), "tensor 'x' needs a shape, a dtype and parts"),
    "an unknown dtype": (lambda m: m["tensors"]["x"].update(dtype="float99"), "'x' has the dtype 'float99'; there is bfloat16, bool"),
    "a dtype that is no text": (lambda m: m["tensors"]["x"].update(dtype=[1]), r"'x' has the dtype \[1\]"),
    "a part of another file": (edit_part(file="y"), "a part of 'x' needs a file that the manifest names"),
    "a part with too few offsets": (edit_part(offsets=[0]), "as many offsets and sizes as the tensor has dims"),
    "a part that is short": (edit_part(sizes=[2, 2]), r"x: the parts hold 4 numbers where the shape \[2, 3\] has 6"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_manifest_gets_one_line_and_is_passed_over(tmp_path: Path, fault: str) -> None:
    edit, words = MALFORMED[fault]
    edited(tmp_path / "step-2", edit)
    with pytest.raises(ModelError, match=words) as caught:
        Checkpoint(tmp_path / "step-2")
    assert "\n" not in str(caught.value)
    write_checkpoint(tmp_path / "step-1", {"x": torch.zeros(3)}, {})
    lines: list[str] = []
    assert latest_checkpoint(tmp_path, report=lines.append) == f"{tmp_path}/step-1"
    assert len(lines) == 1


def relabelled(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint whose part has another header than it was written with; its size and SHA-256 in the manifest are the new ones."""
    write_checkpoint(folder, {"x": torch.arange(6.0).view(2, 3)}, {"step": 1})
    (part,) = folder.glob("part-*.safetensors")
    content = part.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edited = edit(header)
    text = json.dumps(header if edited is None else edited).encode()
    part.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][part.name] = {"bytes": part.stat().st_size, "sha256": sha256_of(part)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_header(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["x"].update(changes)


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no shape": (lambda h: h["x"].pop("shape") and None, r"x is 'F32' of the shape None, where the manifest says float32 of \[2, 3\]"),
    "another shape": (edit_header(shape=[3, 2]), r"of the shape \[3, 2\], where the manifest says float32 of \[2, 3\]"),
    "another dtype of the same size": (edit_header(dtype="I32"), "x is 'I32' of the shape .*, where the manifest says float32"),
    "a dtype that nobody knows": (edit_header(dtype="F4"), "x is 'F4' of the shape"),
    "one offset": (edit_header(data_offsets=[0]), r"x has 24 bytes; its place in the file is given as \[0\]"),
    "offsets of another size": (edit_header(data_offsets=[0, 20]), r"x has 24 bytes; its place in the file is given as \[0, 20\]"),
    "offsets before the data": (edit_header(data_offsets=[-24, 0]), r"given as \[-24, 0\]"),
    "offsets as text": (edit_header(data_offsets="ab"), "given as 'ab'"),
    "an entry that is no table": (lambda h: h.update(x=3), "x is None of the shape None"),
    "no entry": (lambda h: {"y": h["x"]}, "no piece of x"),
    "a list": (lambda h: [1], r"not a safetensors file \(a header that is no table but \[1\]\)"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_parts_header_must_say_what_the_manifest_says(tmp_path: Path, fault: str) -> None:
    relabelled(tmp_path / "whole", lambda header: None)
    assert torch.equal(read_checkpoint(tmp_path / "whole")[0]["x"], torch.arange(6.0).view(2, 3))
    edit, words = HEADERS[fault]
    relabelled(tmp_path / "a", edit)
    with pytest.raises(ModelError, match=words) as caught:
        read_checkpoint(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_part_may_be_read_by_whoever_may_read_the_manifest(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"x": torch.zeros(3)}, {})
    assert len({path.stat().st_mode for path in (tmp_path / "a").iterdir()}) == 1


def test_a_dtype_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="x has the dtype complex64; a checkpoint holds"):
        write_checkpoint(tmp_path / "a", {"x": torch.zeros(3, dtype=torch.complex64)}, {})


def test_a_path_through_a_file_gets_one_line(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for folder in (notes / "step-1", notes / "a" / "b"):
        with pytest.raises(ModelError, match="a file stands there or above it; a folder is needed"):
            write_checkpoint(folder, {"x": torch.zeros(3)}, {})
    with pytest.raises(ModelError, match="no such file; one of the folders that it names is a file"):
        read_json(notes / "a.json")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(ModelError, match="a folder stands there; a JSON file is needed"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ModelError, match="a folder stands there; a file is to be written"):
        write_json(tmp_path / "b.json", {})
    assert notes.read_text() == "mine"


def test_the_newest_complete_one_is_found_and_the_rest_is_said(folder: str) -> None:
    for step in (9, 10, 11):
        write_checkpoint(f"{folder}/step-{step}", {"x": torch.full((3,), float(step))}, {"step": step})
    checkpoint = Checkpoint(f"{folder}/step-11")
    from modeling.whole_files import store_of

    store, inside = store_of(f"{folder}/step-11/manifest.json")
    store.rm(inside)
    lines: list[str] = []
    assert latest_checkpoint(folder, report=lines.append) == f"{folder}/step-10"
    assert len(lines) == 1
    assert "step-11" in lines[0]
    assert list_checkpoints(folder, report=lines.append) == [f"{folder}/step-9", f"{folder}/step-10"]
    assert checkpoint.metadata == {"step": 11}
    assert latest_checkpoint(f"{folder}/none") is None


WRITER = """
    import sys, torch
    from modeling.checkpoint import write_checkpoint
    for step in range(1, 100_000):
        write_checkpoint(f"{sys.argv[1]}/step-{step:08d}", {f"t{n}": torch.full((20_000,), float(step)) for n in range(4)}, {"step": step})
        write_checkpoint(f"{sys.argv[1]}/rewritten-1", {"t": torch.full((200_000,), float(step))}, {"step": step})
        print(step, flush=True)
"""


def test_a_killed_writer_leaves_what_was_complete(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    done = 0
    for line in process.stdout:
        done = int(line)
        if done == 5:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (tmp_path / "step-00099999").mkdir()  # and one that was cut before its manifest
    lines: list[str] = []
    complete = [path for path in list_checkpoints(tmp_path, report=lines.append) if "step-" in path]
    assert any("step-00099999" in line for line in lines)
    assert len(complete) >= done
    for path in [*complete, str(tmp_path / "rewritten-1")]:
        tensors, metadata = read_checkpoint(path)
        assert all((tensor == float(metadata["step"])).all() for tensor in tensors.values())
