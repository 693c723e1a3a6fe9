"""When a checkpoint is written, which are kept, and whether one may be gone on from. The format is `modeling/checkpoint.py`'s.

Tensors are logical, whatever the number of ranks and their layout: `weight/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME` in float32, each in
the parts that its ranks held. Metadata: `step`, `updates` (those that were made), `identity` (every setting that decides the run, flat),
`losses` (of steps not logged yet), `seconds`, `cpu_seconds`, `precision`, `ranks`, `layout`, and what the trainer adds.
"""

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_pipeline.errors import InputError
from modeling.checkpoint import MANIFEST, Checkpoint, finish_checkpoint, list_checkpoints
from modeling.checkpoint_parts import PartWriter, host_copy, note_place
from modeling.errors import ModelError
from modeling.whole_files import store_of
from training.world import World

POLL_SECONDS, LONGEST_POLL = 0.02, 1.0
# The folders that are a run's checkpoints. Whatever else lies beside them is not ours to count or to remove.
STEP_NAMES = r"step-(\d{8,})"
ALONE = World()
JOIN_SECONDS = 1.0  # between two looks at what is being written


@dataclass(frozen=True)
class StatePiece:
    """A box of a logical tensor: `tensor` lies at `offsets` of the whole, whose shape is `shape`."""

    name: str
    tensor: Tensor
    shape: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """What a finished checkpoint cost, in seconds: the copy, for which training stood still, and the writing behind its back."""

    step: int
    bytes: int
    copy_s: float
    write_s: float
    waited_s: float  # for the checkpoint before, which was not written yet


class CheckpointStore:
    """The checkpoints of one run, in one folder or below one address of an object store."""

    def __init__(
        self,
        folder: str | Path,
        keep_last: int,
        identity: dict[str, Any],
        keep_every: int = 0,
        say: Callable[[str], None] = lambda line: None,
        start_over: str = "",
    ) -> None:
        self.folder = str(folder)
        self.start_over = start_over or f"start over by deleting {folder}"  # what a refusal advises
        self.keep_last, self.keep_every = keep_last, keep_every
        self.identity = identity
        self.say = say
        self.thread: threading.Thread | None = None
        self.failure: Exception | None = None
        self.moved = 0  # pieces that the thread has handed on
        self.written: list[Written] = []  # to be taken by who logs it
        self.corrupt: set[str] = set()  # found so by this process: written again when their step comes

    def place(self, step: int) -> str:
        """The folder of the checkpoint after `step` steps."""
        return f"{self.folder}/step-{step:08d}"

    def latest(self, say: Callable[[str], None], world: World = ALONE) -> Checkpoint | None:
        """The newest complete, intact checkpoint, the same on every rank.

        Ranks share the work of comparing files with their SHA-256; a corrupt one is named, and the checkpoint before is used. Where files
        cannot be read at all nothing is known of them, and every rank refuses to go on.
        """

        def told(line: str) -> None:
            say(f"pretrain: {line}")

        paths = world.agree(lambda: list_checkpoints(self.folder, told, STEP_NAMES))
        for path in reversed(paths):
            checkpoint, fault, unread = examine(path, world)
            found = world.gather((fault, unread))
            broken = [one for _, one in found if one is not None]
            if broken:
                raise InputError(
                    f"{path}: cannot be read ({broken[0]}); mend that, or remove this checkpoint to go on from the one before it"
                )
            faults = [one for one, _ in found if one is not None]
            if checkpoint is not None and not faults:
                return checkpoint
            self.corrupt.add(path)
            told(f"checkpoint skipped: {faults[0]}")
        return None

    def complete(self) -> list[str]:
        """The names of the complete checkpoints that are not known to be corrupt, oldest first."""
        paths = list_checkpoints(self.folder, lambda _: None, STEP_NAMES)
        return [path.rsplit("/", 1)[-1] for path in paths if path not in self.corrupt]

    def check_identity(self, checkpoint: Checkpoint, identity: dict[str, Any]) -> None:
        """Refuses a checkpoint whose recipe or data is not this run's `identity`, naming the first setting that differs."""
        made = checkpoint.metadata.get("identity", {})
        for name in [*identity, *(name for name in made if name not in identity)]:
            before, now = made.get(name), identity.get(name)
            if before == now:
                continue
            what = f"with {name} = {before!r}, and it is {now!r} now; put it back"
            if name == "data":
                what = "on other token shards or another order of them; put them back"
            raise InputError(f"{checkpoint.folder}: this checkpoint was trained {what}, or {self.start_over}")

    def begin(
        self,
        step: int,
        pieces: Iterable[StatePiece],
        metadata: dict[str, Any],
        world: World = ALONE,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies this rank's pieces of the state after `step` steps to host memory and goes on writing them in the background.

        All ranks take part. The first one writes the manifest once every rank has said that its files are there; then the oldest
        checkpoints go. A failure is told by the next `check`, `begin` or `finish`. `beat` is called while the checkpoint before is waited
        for and comes further.
        """
        began = time.perf_counter()
        self.finish(beat)
        waited = time.perf_counter() - began
        if waited > 1.0:
            self.say(
                f"pretrain: step {step}: waited {waited:.1f} s for the checkpoint before to be written; checkpoint_every is short for it"
            )
        attempt = world.agree(lambda: self.make_room(step))
        if attempt is None:
            return
        began = time.perf_counter()
        copies = [StatePiece(one.name, host_copy(one.tensor), one.shape, one.offsets) for one in pieces]
        copied = time.perf_counter() - began
        whole = {"step": step, "identity": self.identity, **metadata}

        def write() -> None:
            try:
                began = time.perf_counter()
                size = self.write(step, copies, whole, world, attempt)
                self.written.append(Written(step, size, copied, time.perf_counter() - began, waited))
            except Exception as error:
                self.failure = error

        self.thread = threading.Thread(target=write, name=f"checkpoint-{step}", daemon=True)
        self.thread.start()

    def make_room(self, step: int) -> str | None:
        """The first rank's part of a beginning: what a killed attempt has left goes, a corrupt one too. None where a good one stands."""
        folder = self.place(step)
        if folder not in self.corrupt:
            with suppress(ModelError):  # none, not complete, or not all of its files
                Checkpoint(folder)
                return None
        self.remove(folder.rsplit("/", 1)[-1])
        return uuid.uuid4().hex[:8]

    def write(self, step: int, copies: list[StatePiece], metadata: dict[str, Any], world: World, attempt: str) -> int:
        """This rank's files, and on the first rank the manifest; returns the bytes of the state that this rank has written."""
        folder = self.place(step)
        with PartWriter(folder, world.rank, attempt=attempt) as writer:
            for one in copies:
                writer.add(one.name, one.tensor, one.shape, one.offsets, own=True)
                self.moved += 1
        size = sum(one.tensor.nbytes for one in copies)
        copies.clear()
        if world.first:
            store, _ = store_of(folder)
            for rank in range(world.ranks):
                note, pause = store_of(note_place(folder, rank, attempt))[1], POLL_SECONDS
                while not store.exists(note):  # a rank that fails ends, and the launcher ends us with it
                    time.sleep(pause)
                    pause = min(1.5 * pause, LONGEST_POLL)  # every look is a request to an object store
                    store.invalidate_cache()
                self.moved += 1
            finish_checkpoint(folder, world.ranks, metadata, attempt)
            self.corrupt.discard(folder)
            self.prune()
        return size

    def take_written(self) -> list[Written]:
        """What was finished since this was last asked."""
        taken, self.written = self.written, []
        return taken

    def check(self) -> None:
        """Raises what writing in the background has failed with, in one line."""
        if self.failure is not None:
            error, self.failure = self.failure, None
            told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors says the system's number in its text only
            reason = os.strerror(int(told[1])) if told else getattr(error, "strerror", None) or " ".join(str(error).split())
            raise InputError(f"{self.folder}: a checkpoint could not be written: {reason}; what was complete before is kept") from error

    def finish(self, beat: Callable[[], None] = lambda: None) -> None:
        """Returns when nothing is being written any more; `beat` is called while that comes further."""
        if self.thread is not None:
            seen = self.moved
            while self.thread.is_alive():
                self.thread.join(JOIN_SECONDS)
                if self.moved > seen:
                    seen = self.moved
                    beat()
            self.thread = None
        self.check()

    def prune(self) -> None:
        """Removes all but the last complete checkpoints and those of every `keep_every` steps: older ones, corrupt and incomplete ones.
        The manifest goes first, so a kill leaves nothing that looks complete."""
        complete = self.complete()
        kept = set(complete[-self.keep_last :])
        kept |= {name for name in complete if self.keep_every and step_of(name) % self.keep_every == 0}
        store, inside = store_of(self.folder)
        for path in store.ls(inside, detail=False):
            name = path.rstrip("/").rsplit("/", 1)[-1]
            if re.fullmatch(STEP_NAMES, name) and name not in kept and store.isdir(path):
                self.remove(name)

    def discard_after(self, step: int) -> None:
        """Removes every checkpoint of a later step."""
        for path in list_checkpoints(self.folder, lambda _: None, STEP_NAMES):
            if step_of(path) > step:
                self.remove(path.rsplit("/", 1)[-1])

    def remove(self, name: str) -> None:
        store, inside = store_of(f"{self.folder}/{name}")
        if store.exists(f"{inside}/{MANIFEST}"):
            store.rm(f"{inside}/{MANIFEST}")
        if store.exists(inside):  # an object store has no folders: with its last file it is gone
            store.rm(inside, recursive=True)


def examine(path: str, world: World) -> tuple[Checkpoint | None, str | None, str | None]:
    """A checkpoint, what is wrong with this rank's share of its files, and what kept this rank from reading them; it raises neither, since
    the other ranks wait to hear of it."""
    try:
        checkpoint = Checkpoint(path)
        checkpoint.verify(world.rank, world.ranks)
    except ModelError as error:
        return None, str(error), None
    except OSError as error:
        return None, None, " ".join((error.strerror or str(error) or type(error).__name__).split())
    return checkpoint, None, None


def step_of(path: str) -> int:
    """The step in the name of a run's checkpoint; 0 where it is another folder's."""
    found = re.fullmatch(STEP_NAMES, path.rstrip("/").rsplit("/", 1)[-1])
    return int(found[1]) if found else 0
