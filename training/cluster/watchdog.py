"""In every rank: a thread that says where the rank is, and shows every stack when it stands still.

`heartbeats/rank-N.json` of the run's folder, written every second: time, step, the collective that the rank is in, since when, host, pid. A
rank that is stopped says nothing any more, one that waits for it says in which collective. After `hang_seconds` without a step the rank
writes all its stacks to standard error.
"""

import faulthandler
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.storage import read_json, write_json

BEAT_SECONDS = 1.0
STACKS_SECONDS = 3.0  # after `hang_seconds`, until a rank has written its stacks and may be ended
START_SECONDS = 600.0  # until the first step
FOLDER = "heartbeats"
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "broadcast_object_list",
    "reduce",
    "reduce_scatter_tensor",
)


class Watchdog:
    """One rank's. `progress` after every step, `end` when the rank is done."""

    def __init__(self, out: Path, rank: int, hang_seconds: float = 0.0, stream: Any = None) -> None:
        self.path = out / FOLDER / f"rank-{rank}.json"
        self.rank, self.hang_seconds = rank, hang_seconds
        self.stream = stream or sys.stderr
        self.step = -1  # of which nothing is done yet
        self.moved = time.time()
        self.collective: tuple[str, float] | None = None
        self.started = "a collective"
        self.shown = False
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.beat, name="watchdog", daemon=True)

    def start(self) -> "Watchdog":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.write()
        self.thread.start()
        return self

    def progress(self, step: int) -> None:
        """A step is done."""
        self.step, self.moved, self.shown = step, time.time(), False

    def end(self) -> None:
        self.done.set()
        self.thread.join()
        self.path.unlink(missing_ok=True)

    def beat(self) -> None:
        while not self.done.wait(BEAT_SECONDS):
            self.write()
            if self.hang_seconds and not self.shown and time.time() - self.moved > self.hang_seconds:
                self.show_stacks()
            if self.shown and os.environ.get("PHIAL_HANG_EXIT") and time.time() - self.moved > self.patience:
                os._exit(1)  # nobody watches who would end us: a batch system sees an exit code alone

    @property
    def patience(self) -> float:
        """Seconds without a step after which a rank that nobody watches ends itself; before its first step it reads and compiles."""
        return max(self.hang_seconds, START_SECONDS) if self.step < 0 else self.hang_seconds

    def write(self) -> None:
        inside = self.collective
        facts = {"time": time.time(), "step": self.step, "moved": self.moved, "host": socket.gethostname(), "pid": os.getpid()}
        with suppress(OSError):  # a full disk is told where it matters
            write_json(self.path, facts | ({"collective": inside[0], "since": inside[1]} if inside else {}))

    def show_stacks(self) -> None:
        """Every thread's stack, once for every stand-still."""
        self.shown = True
        inside = self.collective
        where = f" in {inside[0]} for {time.time() - inside[1]:.0f} s" if inside else ""
        self.stream.write(
            f"rank {self.rank}: no step for {time.time() - self.moved:.0f} s, after step {self.step},{where or ' in no collective'}\n"
        )
        self.stream.flush()
        faulthandler.dump_traceback(file=self.stream, all_threads=True)

    def watch_collectives(self) -> None:
        """From now on torch's collectives say when they begin and end. They are called by name from everywhere, DeepSpeed included."""
        import torch.distributed as dist

        for name in COLLECTIVES:
            function = getattr(dist, name, None)
            if function is not None and not hasattr(function, "watched"):
                setattr(dist, name, self.watched(name, function))
        work = dist.Work
        if not hasattr(work.wait, "watched"):
            work.wait = self.watched(None, work.wait)  # type: ignore[method-assign]

    def watched(self, name: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, telling where it is; without a name it waits for what was started last."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            outer = self.collective
            self.started = name or self.started
            self.collective = (name or f"the wait for {self.started}", time.time())
            try:
                return function(*arguments, **named)
            finally:
                self.collective = outer

        call.watched = True  # type: ignore[attr-defined]
        return call


def read_heartbeats(out: Path) -> dict[int, dict[str, Any]]:
    """The last word of every rank."""
    found = {}
    for path in (out / FOLDER).glob("rank-*.json") if (out / FOLDER).is_dir() else []:
        try:
            found[int(path.stem.removeprefix("rank-"))] = read_json(path)
        except Exception:  # being replaced at this moment, or of a rank that has ended
            continue
    return found


def clear_heartbeats(out: Path) -> None:
    for path in (out / FOLDER).glob("rank-*.json") if (out / FOLDER).is_dir() else []:
        path.unlink(missing_ok=True)


def describe_hang(
    beats: dict[int, dict[str, Any]], ranks: int, now: float, hang_seconds: float, start_seconds: float | None = None
) -> str | None:
    """One line about ranks that stand still or are silent; None while all is well. Before its first step, while it reads a checkpoint and
    builds its engine, a rank has `start_seconds`.

    The silent ones and those furthest behind are the cause, the others wait for them.
    """
    silent = [rank for rank, beat in beats.items() if now - beat["time"] > hang_seconds]
    first = hang_seconds if start_seconds is None else max(hang_seconds, start_seconds)
    first, later = first + STACKS_SECONDS, hang_seconds + STACKS_SECONDS
    patience = {rank: first if beat["step"] < 0 else later for rank, beat in beats.items()}
    still = [rank for rank, beat in beats.items() if rank not in silent and now - beat["moved"] > patience[rank]]
    if not silent and len(still) < ranks:
        return None
    told = []
    for rank in sorted(silent):
        beat = beats[rank]
        quiet = f"has said nothing for {now - beat['time']:.0f} s, last after step {beat['step']}"
        told.append(f"rank {rank} ({beat['host']}, pid {beat['pid']}) {quiet}")
    for rank in sorted(still):
        beat = beats[rank]
        where = f"in {beat['collective']} for {now - beat['since']:.0f} s" if "collective" in beat else "in no collective"
        told.append(f"rank {rank} is {where}, after step {beat['step']}")
    return "; ".join(told)
