"""Functions run on gloo ranks of their own, one thread each."""

import multiprocessing
import multiprocessing.connection
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

# A rank that waits this long for another has lost it.
TIMEOUT = timedelta(minutes=10)


class RankFailure(Exception):
    """What the first rank that failed said."""


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` gives on each of `count` ranks, which live for this call alone. Raises RankFailure where one fails.

    The function must be importable. Ranks that wait for one that has failed are ended.
    """
    return run(count, True, function, arguments)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives in a process of its own that is no rank."""
    return run(1, False, function, arguments)[0]


def run(count: int, joined: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    """`joined`: the processes are ranks of one group."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed"])
    results: list[Any] = [None] * count
    with tempfile.TemporaryDirectory() as folder:
        members = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            meeting = Path(folder) / "meet" if joined else None
            process = context.Process(target=serve, args=(rank, count, meeting, theirs, function, arguments), daemon=True)
            process.start()
            theirs.close()
            members.append((process, ours))
        try:
            waiting = {pipe: rank for rank, (_, pipe) in enumerate(members)}
            while waiting:
                for pipe in multiprocessing.connection.wait(list(waiting)):
                    rank = waiting.pop(pipe)  # type: ignore[arg-type]
                    try:
                        good, results[rank] = pipe.recv()  # type: ignore[union-attr]
                    except (EOFError, ConnectionResetError):
                        good, results[rank] = False, "the process ended without a word"
                    if not good:
                        raise RankFailure(f"rank {rank} of {count}: {results[rank]}")
        finally:
            for process, pipe in members:
                pipe.close()
                process.kill()
                process.join()
    return results


def serve(
    rank: int,
    world: int,
    meeting: Path | None,
    pipe: multiprocessing.connection.Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """One rank."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        if meeting is not None:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=TIMEOUT)
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
