"""Thousands of parts: their tiling is decided exactly and soon, pieces of one name share a file, and files of before still read."""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import checkpoint_parts
from modeling.checkpoint import Checkpoint, finish_checkpoint, read_checkpoint
from modeling.checkpoint_manifest import check_tiling, cover_once
from modeling.checkpoint_parts import PartWriter
from modeling.errors import ModelError

Part = dict[str, Any]
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def divided(draw, offsets: list[int], sizes: list[int], cuts: int) -> list[Part]:
    """A box cut in two again and again, each time along any dim."""
    dims = [dim for dim, size in enumerate(sizes) if size > 1]
    if not cuts or not dims:
        return [{"offsets": offsets, "sizes": sizes}]
    dim = draw(st.sampled_from(dims))
    first = draw(st.integers(1, sizes[dim] - 1))
    beyond = [place + first * (one == dim) for one, place in enumerate(offsets)]
    halves = (
        (offsets, [first if one == dim else size for one, size in enumerate(sizes)]),
        (
            beyond,
            [size - first if one == dim else size for one, size in enumerate(sizes)],
        ),
    )
    return [part for begin, extent in halves for part in divided(draw, begin, extent, cuts - 1)]


def counted(shape: list[int], parts: list[Part]) -> bool:
    """The same by counting, entry by entry."""
    seen = np.zeros(shape, int)
    for part in parts:
        seen[tuple(slice(begin, begin + size) for begin, size in zip(part["offsets"], part["sizes"], strict=True))] += 1
    return bool((seen == 1).all())


@given(shapes, st.integers(0, 4), st.data())
def test_parts_that_cover_a_tensor_once_are_told_from_others(shape: list[int], cuts: int, data) -> None:
    parts = divided(data.draw, [0] * len(shape), shape, cuts)
    assert cover_once(shape, parts)
    check_tiling("x", shape, parts)
    moved = [dict(part) for part in parts]
    one = data.draw(st.integers(0, len(parts) - 1))
    moved[one]["offsets"] = [data.draw(st.integers(0, whole - size)) for whole, size in zip(shape, moved[one]["sizes"], strict=True)]
    assert cover_once(shape, moved) == counted(shape, moved)
    if not counted(shape, moved):
        with pytest.raises(ModelError, match="overlap"):
            check_tiling("x", shape, moved)


def test_many_parts_are_checked_soon_and_exactly() -> None:
    """A grid of 10,000: pairs would be 50 million. One part in its neighbour's place leaves the volume as it was."""
    parts = [{"offsets": list(place), "sizes": [1, 1]} for place in product(range(100), range(100))]
    began = time.process_time()
    check_tiling("x", [100, 100], parts)
    assert time.process_time() - began < 5.0
    parts[5050] = {"offsets": [50, 51], "sizes": [1, 1]}
    with pytest.raises(ModelError, match=r"the parts at \[50, 51\] and \[50, 51\] overlap"):
        check_tiling("x", [100, 100], parts)


def test_a_tensor_cut_along_many_dims_is_checked_by_pairs() -> None:
    dims = 8
    parts = [{"offsets": list(place), "sizes": [1] * dims} for place in product(range(2), repeat=dims)]
    check_tiling("x", [2] * dims, parts)
    parts[3] = dict(parts[4])
    with pytest.raises(ModelError, match="overlap"):
        check_tiling("x", [2] * dims, parts)


def test_pieces_of_one_name_share_a_file_and_each_has_its_own_key(tmp_path: Path) -> None:
    """One tensor of that key's name is there too, before the piece that would take it."""
    with PartWriter(tmp_path / "a") as writer:
        writer.add("w", torch.zeros(2, 3), (6, 3), (0, 0))
        writer.add("v#1", torch.full((5,), 5.0))
        writer.add("w", torch.ones(3, 3), (6, 3), (2, 0))
        writer.add("w", torch.full((1, 3), 2.0), (6, 3), (5, 0))
        writer.add("v", torch.tensor([1.0, 2.0]), (5,), (0,))
        writer.add("v", torch.tensor([3.0, 4.0, 5.0]), (5,), (2,))
    finish_checkpoint(tmp_path / "a", 1, {})
    found = read_checkpoint(tmp_path / "a")[0]
    assert found["w"][:, 0].tolist() == [0, 0, 1, 1, 1, 2]
    assert found["v"].tolist() == [1, 2, 3, 4, 5]
    assert found["v#1"].tolist() == [5.0] * 5
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert [part.get("key") for part in manifest["tensors"]["w"]["parts"]] == [None, "w#1", "w#2"]
    assert len({part["file"] for part in manifest["tensors"]["w"]["parts"]}) == 1
    assert len(manifest["files"]) == 2, "and only what would have one name is apart"
    for key, words in [("w#9", "no piece of w#9"), (7, "a part of 'w' needs a file")]:
        manifest["tensors"]["w"]["parts"][1]["key"] = key
        (tmp_path / "a/manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match=words):
            read_checkpoint(tmp_path / "a")


def test_files_of_before_there_were_keys_are_read(tmp_path: Path) -> None:
    """Then every piece of one name had a file of its own, all under the tensor's name; a whole tensor is written so to this day."""
    for rank in range(3):
        with PartWriter(tmp_path / "a", rank) as writer:
            writer.add("w", torch.arange(4.0) + 4 * rank, (12,), (4 * rank,))
    finish_checkpoint(tmp_path / "a", 3, {})
    assert '"key"' not in (tmp_path / "a/manifest.json").read_text()
    assert read_checkpoint(tmp_path / "a")[0]["w"].tolist() == list(range(12))
    note = json.loads((tmp_path / "a/manifest.json").read_text())
    assert set(note["tensors"]["w"]["parts"][0]) == {"file", "offsets", "sizes"}


def test_a_file_of_many_pieces_is_opened_once_for_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PartWriter(tmp_path / "a") as writer:
        for place in range(200):
            writer.add("w", torch.full((1, 2), float(place)), (200, 2), (place, 0))
    finish_checkpoint(tmp_path / "a", 1, {})
    read: list[str] = []
    real = checkpoint_parts.read_header

    def header(stream: Any, path: str) -> Any:
        read.append(path)
        return real(stream, path)

    monkeypatch.setattr(checkpoint_parts, "read_header", header)
    checkpoint = Checkpoint(tmp_path / "a")
    for begin in range(0, 190, 7):
        assert checkpoint.read("w", (begin, 1), (9, 1)).flatten().tolist() == list(range(begin, begin + 9))
    assert len(read) == 1


def test_contents_of_many_files_are_not_all_kept(tmp_path: Path) -> None:
    count = 3 * checkpoint_parts.KEPT_HEADERS
    for rank in range(count):
        with PartWriter(tmp_path / "b", rank) as writer:
            writer.add("w", torch.full((1,), float(rank)), (count,), (rank,))
    finish_checkpoint(tmp_path / "b", count, {})
    checkpoint = Checkpoint(tmp_path / "b")
    for _ in range(2):
        assert checkpoint.read("w").tolist() == list(range(count))
    assert len(checkpoint.reader.headers) == checkpoint_parts.KEPT_HEADERS
