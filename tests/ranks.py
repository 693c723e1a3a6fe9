"""Functions run on several ranks: one set of gloo processes per test file, which meet over a file and are told what to call."""

import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# A rank that waits this long for another has lost it.
TIMEOUT = timedelta(seconds=90)


class RankError(AssertionError):
    """What the first rank that failed printed."""


class Ranks:
    """`ranks(3, function, *arguments)` calls `function(*arguments)` on three ranks and returns what each gave, or raises RankError.

    The function must be importable. Each number of ranks has its own processes, started at its first call. When one rank fails the
    others may wait for it, so its fellows are ended, and started again at the next call.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = 0
        self.worlds: dict[int, list[tuple[Any, Connection]]] = {}

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        for count in list(self.worlds):
            self.stop(count)

    def __call__(self, count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        chosen = self.worlds.get(count) or self.start(count)
        for _, pipe in chosen:
            pipe.send((function, arguments))
        results: list[Any] = [None] * count
        waiting = {pipe: rank for rank, (_, pipe) in enumerate(chosen)}
        while waiting:
            ready = multiprocessing.connection.wait(list(waiting), timeout=TIMEOUT.total_seconds() + 30)
            if not ready:
                self.stop(count)
                raise RankError(f"no rank answered in {TIMEOUT}; ranks {sorted(waiting.values())} were waited for")
            for pipe in ready:
                rank = waiting.pop(pipe)  # type: ignore[arg-type]
                try:
                    good, results[rank] = pipe.recv()  # type: ignore[union-attr]
                except EOFError:
                    good, results[rank] = False, "the process ended without a word"
                if not good:
                    self.stop(count)
                    raise RankError(f"rank {rank} of {count}: {results[rank]}")
        return results

    def start(self, count: int) -> list[tuple[Any, Connection]]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "torch.distributed"])
        self.starts += 1
        meeting = self.folder / f"meet-{self.starts}"
        members: list[tuple[Any, Connection]] = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, count, meeting, theirs), daemon=True)
            process.start()
            theirs.close()
            members.append((process, ours))
        self.worlds[count] = members
        return members

    def stop(self, count: int) -> None:
        for process, pipe in self.worlds.pop(count):
            pipe.close()
            process.kill()
            process.join()


def serve(rank: int, world: int, meeting: Path, pipe: Connection) -> None:
    """One rank: joins the others and does what it is told until the pipe closes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=TIMEOUT)
    warnings.simplefilter("error")
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
        del function, arguments
