"""The store of a run's checkpoints: what ranks write behind training's back, what is found again, what is kept, and what is not touched.

Ranks are threads here; what they say to each other goes over a barrier.
"""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_pipeline.errors import InputError
from modeling import checkpoint_parts
from modeling.checkpoint import Checkpoint, list_checkpoints, write_checkpoint
from modeling.checkpoint_parts import PartWriter
from modeling.whole_files import read_json, store_of
from training import checkpoint
from training.checkpoint import CheckpointStore, StatePiece, step_of
from training.world import World

PATIENCE = 20.0


@dataclass
class Table:
    """Where ranks that are threads lay down what they say."""

    ranks: int
    said: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.said = [None] * self.ranks
        self.barrier = threading.Barrier(self.ranks, timeout=PATIENCE)


@dataclass(frozen=True)
class Thread(World):
    """A rank that is a thread."""

    table: Table = field(default_factory=lambda: Table(1))

    def gather(self, value: Any) -> list[Any]:
        self.table.said[self.rank] = value
        self.table.barrier.wait()
        found = list(self.table.said)
        self.table.barrier.wait()
        return found

    def agree(self, make: Callable[[], Any]) -> Any:
        made, error = None, None
        if self.first:
            try:
                made = make()
            except Exception as caught:
                error = caught
        made, error = self.gather((made, error))[0]
        if error is not None:
            raise error
        return made


def together(ranks: int, function: Callable[[World], Any]) -> list[Any]:
    """What the function gives on every rank."""
    table = Table(ranks)
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(function, [Thread(rank, ranks, table) for rank in range(ranks)]))


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    address = str(tmp_path / "checkpoints") if request.param == "local" else f"memory://{tmp_path.name}/checkpoints"
    yield address
    store, inside = store_of(address)
    if store.exists(inside):
        store.rm(inside, recursive=True)


def names(folder: str | Path) -> list[str]:
    store, inside = store_of(folder)
    return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in store.ls(inside, detail=False))


def state(step: int) -> torch.Tensor:
    return torch.arange(12.0).view(4, 3) + 100 * step


def cut(step: int, world: World) -> list[StatePiece]:
    """Two boxes of `weight/w` a rank, row by row: one name twice in a file."""
    rows = state(step).split(2 // world.ranks)
    mine = range(world.rank, len(rows), world.ranks)
    return [StatePiece("weight/w", rows[one], (4, 3), (one * len(rows[one]), 0)) for one in mine]


def save(store: CheckpointStore, step: int, world: World = World(), **metadata: Any) -> None:
    store.begin(step, cut(step, world), metadata, world)
    store.finish()


def spoil(folder: str | Path, change: Callable[[bytes], bytes]) -> str:
    """Changes a file of the checkpoint; returns its name."""
    part = min(Path(folder).glob("part-*.safetensors"))
    part.write_bytes(change(part.read_bytes()))
    return part.name


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def shortened(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_ranks_hold_is_found_whole(folder: str, ranks: int) -> None:
    def run(world: World) -> tuple[str, float, int]:
        store = CheckpointStore(folder, 2, {"seed": 5})
        for step in (3, 6):
            save(store, step, world, updates=step - 1)
        found = CheckpointStore(folder, 2, {}).latest(print, world)
        assert found is not None
        assert torch.equal(found.read("weight/w"), state(6))
        assert torch.equal(found.read("weight/w", (1, 1), (2, 2)), state(6)[1:3, 1:])
        assert found.metadata == {"step": 6, "identity": {"seed": 5}, "updates": 5}
        return found.folder, found.metadata["step"], sum(one.bytes for one in store.take_written())

    assert together(ranks, run) == [(f"{folder}/step-00000006", 6, 2 * 48 // ranks)] * ranks
    assert names(folder) == ["step-00000003", "step-00000006"]
    assert all(name == "manifest.json" or name.endswith(".safetensors") for name in names(f"{folder}/step-00000006"))


def test_training_goes_on_while_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training changes meanwhile is not what is written, and nothing is complete before it is."""
    go_on = threading.Event()
    close = PartWriter.close

    def slowly(self: PartWriter) -> None:
        assert go_on.wait(PATIENCE)
        close(self)

    monkeypatch.setattr(PartWriter, "close", slowly)
    weights = torch.ones(4)
    store = CheckpointStore(tmp_path, 2, {})
    store.begin(1, [StatePiece("weight/w", weights[:2], (4,), (0,)), StatePiece("weight/w", weights[2:], (4,), (2,))], {})
    weights.zero_()
    assert CheckpointStore(tmp_path, 2, {}).latest(lambda _: None) is None
    assert store.take_written() == []
    go_on.set()
    store.finish()
    assert torch.equal(Checkpoint(store.place(1)).read("weight/w"), torch.ones(4))
    (written,) = store.take_written()
    assert (written.step, written.bytes, store.take_written()) == (1, 16, [])
    # A tensor that is not copied would be written as training has left it.
    monkeypatch.setattr(checkpoint, "host_copy", lambda piece: piece)
    go_on.clear()
    store.begin(2, [StatePiece("weight/w", weights, (4,), (0,))], {})
    weights.fill_(7)
    go_on.set()
    store.finish()
    assert Checkpoint(store.place(2)).read("weight/w").tolist() == [7.0] * 4


def test_a_checkpoint_that_comes_too_soon_waits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(perf_counter=lambda: next(clock), sleep=time.sleep))
    lines: list[str] = []
    store = CheckpointStore(tmp_path, 2, {}, say=lines.append)
    save(store, 1)
    assert lines == ["pretrain: step 1: waited 2.0 s for the checkpoint before to be written; checkpoint_every is short for it"]
    assert [path[-1] for path in list_checkpoints(tmp_path)] == ["1"]


def test_what_a_killed_attempt_has_left_is_not_joined(tmp_path: Path) -> None:
    """Two ranks died after their notes and before the manifest; the next attempt has one rank, and other values."""
    store = CheckpointStore(tmp_path, 2, {})
    save(store, 1)
    for rank in range(2):
        with PartWriter(store.place(2), rank, attempt="dead") as writer:
            writer.add("weight/w", torch.full((2, 3), -1.0), (4, 3), (2 * rank, 0))
    lines: list[str] = []
    found = store.latest(lines.append)
    assert found is not None
    assert found.metadata["step"] == 1
    assert len(lines) == 1
    assert "step-00000002: no manifest.json" in lines[0]
    save(store, 2)
    assert torch.equal(Checkpoint(store.place(2)).read("weight/w"), state(2))
    assert not [name for name in names(store.place(2)) if "dead" in name]


def test_a_note_of_another_attempt_is_waited_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank of a killed run that writes on after the folder was cleared: its note is not taken for the new rank's."""
    joined = threading.Event()
    real = checkpoint.finish_checkpoint

    def finish(*arguments: Any) -> None:
        joined.set()
        real(*arguments)

    monkeypatch.setattr(checkpoint, "finish_checkpoint", finish)

    def run(world: World) -> None:
        store = CheckpointStore(tmp_path, 2, {})
        if world.first:
            store.begin(1, cut(1, world), {}, world)
            with PartWriter(store.place(1), 1, attempt="dead") as writer:
                writer.add("weight/w", torch.full((2, 3), -1.0), (4, 3), (2, 0))
            assert not joined.wait(0.3), "the manifest waits for the other rank of this attempt"
            world.gather(None)
        else:
            attempt = str(world.agree(lambda: None))
            world.gather(None)
            store.write(1, cut(1, world), {}, world, attempt)
        store.finish()

    together(2, run)
    assert torch.equal(Checkpoint(tmp_path / "step-00000001").read("weight/w"), state(1))


def test_a_good_checkpoint_of_the_step_is_left_as_it_is(folder: str) -> None:
    store = CheckpointStore(folder, 2, {})
    save(store, 1, turn=1)
    save(store, 1, turn=2)
    assert Checkpoint(store.place(1)).metadata["turn"] == 1


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("change", [flipped, shortened])
def test_a_corrupt_checkpoint_is_named_passed_over_and_written_again(tmp_path: Path, ranks: int, change) -> None:
    def run(world: World) -> tuple[int, list[str]]:
        lines: list[str] = []
        store = CheckpointStore(tmp_path, 2, {})
        save(store, 12, world)
        save(store, 14, world)
        world.agree(lambda: spoiled.append(spoil(store.place(14), change)))
        store = CheckpointStore(tmp_path, 2, {})
        found = store.latest(lines.append, world)
        assert found is not None
        save(store, 14, world)
        return found.metadata["step"], lines

    spoiled: list[str] = []
    results = together(ranks, run)
    assert [step for step, _ in results] == [12] * ranks
    assert f"{spoiled[0]} is corrupt" in results[0][1][0]
    again = CheckpointStore(tmp_path, 2, {}).latest(print)
    assert again is not None
    assert torch.equal(again.read("weight/w"), state(14))


def test_a_corrupt_checkpoint_is_none_of_the_last(tmp_path: Path) -> None:
    """Going on from 12, with another `checkpoint_every`: 13 comes before the corrupt 14, and is what must be kept."""
    store = CheckpointStore(tmp_path, 2, {})
    save(store, 12)
    save(store, 14)
    spoil(store.place(14), flipped)
    store = CheckpointStore(tmp_path, 1, {})
    found = store.latest(lambda _: None)
    assert found is not None
    assert found.metadata["step"] == 12
    save(store, 13)
    assert names(tmp_path) == ["step-00000013"]


def test_files_that_cannot_be_read_are_not_called_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store that does not answer one rank: every rank ends with the same line, and no checkpoint goes."""
    store = CheckpointStore(tmp_path, 2, {})
    together(2, lambda world: save(CheckpointStore(tmp_path, 2, {}), 1, world))

    def fails(path: str) -> str:
        if "part-00001" in path:
            raise OSError(errno.EIO, "Input/output error")
        return checkpoint_parts.sha256_of(path)

    monkeypatch.setattr("modeling.checkpoint.sha256_of", fails)

    def run(world: World) -> str:
        with pytest.raises(InputError) as caught:
            CheckpointStore(tmp_path, 2, {}).latest(print, world)
        return str(caught.value)

    line, other = together(2, run)
    assert line == other
    assert line.startswith(f"{store.place(1)}: cannot be read (Input/output error); mend that, or remove")
    monkeypatch.undo()
    assert CheckpointStore(tmp_path, 2, {}).latest(print) is not None


def test_the_last_and_every_nth_are_kept_and_nothing_else_is_touched(folder: str) -> None:
    """A folder of the user's own stays whatever its name, a checkpoint of another tool too."""
    store, inside = store_of(folder)
    store.makedirs(f"{inside}/photos-2024", exist_ok=True)
    store.pipe_file(f"{inside}/photos-2024/one.jpg", b"mine")
    write_checkpoint(f"{folder}/best9", {"x": torch.zeros(2)}, {})
    ours = CheckpointStore(folder, 2, {}, keep_every=4)
    for step in range(1, 8):
        save(ours, step)
    assert names(folder) == ["best9", "photos-2024", "step-00000004", "step-00000006", "step-00000007"]
    ours.discard_after(4)
    assert names(folder) == ["best9", "photos-2024", "step-00000004"]
    found = ours.latest(print)
    assert found is not None
    assert found.metadata["step"] == 4
    assert [step_of(path) for path in list_checkpoints(folder)] == [4, 0]


def test_a_removal_that_is_cut_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, 1, {})
    save(store, 1)
    removed: list[str] = []
    files, _ = store_of(tmp_path)

    def first_only(path: str, recursive: bool = False) -> None:
        removed.append(Path(path).name)
        if len(removed) > 1:
            raise OSError("killed")
        os.remove(path)

    monkeypatch.setattr(files, "rm", first_only)
    with pytest.raises(OSError, match="killed"):
        store.remove("step-00000001")
    assert removed == ["manifest.json", "step-00000001"]
    assert store.complete() == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("two\nlines")])
def test_a_failure_in_the_background_is_told_in_one_line_and_loses_nothing(tmp_path: Path, monkeypatch, error: Exception) -> None:
    store = CheckpointStore(tmp_path, 1, {})
    save(store, 1)

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint_parts, "save_file", full)
    for ask in (store.check, store.finish, lambda: save(store, 3)):
        store.begin(2, cut(2, World()), {})
        assert store.thread is not None
        store.thread.join()
        with pytest.raises(InputError) as caught:
            ask()
        assert str(tmp_path) in str(caught.value)
        assert "could not be written" in str(caught.value)
        assert "\n" not in str(caught.value)
        store.check()  # told once
    monkeypatch.undo()
    assert store.complete() == ["step-00000001"]
    assert not list(tmp_path.rglob(".part*"))
    save(store, 2)
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="a small disk needs the right to mount one")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=128k none '{disk}' 2>/dev/null") != 0:
        pytest.skip("no right to mount a disk")
    try:
        store = CheckpointStore(disk / "checkpoints", 2, {})
        save(store, 1)
        store.begin(2, [StatePiece("weight/w", torch.zeros(100_000), (100_000,), (0,))], {})
        with pytest.raises(InputError, match=r"checkpoints: .*[Nn]o space left on device") as caught:
            store.finish()
        assert "\n" not in str(caught.value)
        found = CheckpointStore(disk / "checkpoints", 2, {}).latest(lambda _: None)
        assert found is not None
        assert torch.equal(found.read("weight/w"), state(1))
    finally:
        os.system(f"umount '{disk}'")


def test_a_checkpoint_of_other_settings_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1, {"[run] seed": 5, "data": "a"})
    save(store, 1)
    found = store.latest(print)
    assert found is not None
    store.check_identity(found, {"[run] seed": 5, "data": "a"})
    with pytest.raises(InputError, match=r"\[run\] seed = 5, and it is 6 now; put it back"):
        store.check_identity(found, {"[run] seed": 6, "data": "a"})
    with pytest.raises(InputError, match="other token shards"):
        store.check_identity(found, {"[run] seed": 5, "data": "b"})
    assert read_json(f"{store.place(1)}/manifest.json")["metadata"]["identity"] == {"[run] seed": 5, "data": "a"}
