"""A process pool whose workers may die: results come in the order of the tasks, and a task that kills its worker costs only itself.

CPU seconds per task are limited by the kernel's profiling timer, whose signal ends the process even inside C code; they do not depend on
how busy the machine is. Memory is limited twice: a worker that still holds much after a task is replaced, and one that asks for more than
`HARD_MEMORY` dies of it.
"""

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

MEMORY = 768 * 2**20  # resident bytes beyond those of its start with which a worker is replaced after a task
HARD_MEMORY = 2 * 2**30  # bytes that a worker may take beyond what it holds when it starts


@dataclass(frozen=True)
class Killed:
    """The result of a task whose worker died over it; `seconds` is the limit it was under."""

    task: Any
    seconds: float


@dataclass(frozen=True)
class Life:
    """What a worker is told when it starts; see `Pool`."""

    function: Callable[[Any, Any], Any]
    setting: Any
    seconds: float
    memory_bytes: int
    prepare: Callable[[Any], None] | None


@dataclass
class Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    task: tuple[int, Any] | None = None


@dataclass
class Pool:
    """`function(setting, task)` for each task. `function` must be importable by name; `setting` is sent to each worker once."""

    function: Callable[[Any, Any], Any]
    setting: Any
    workers: int = 0  # 0 is one per core
    seconds: float = 30.0
    memory_bytes: int = MEMORY
    prepare: Callable[[Any], None] | None = None  # called with the setting when a worker starts, under no limit of time
    crew: list[Worker] = field(default_factory=list)

    def map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """The results in order, `Killed` where a worker died; at most a few tasks per worker are in flight."""
        count = self.workers or usable_cores()
        source = enumerate(tasks)
        done: dict[int, Any] = {}
        next_result, exhausted = 0, False
        try:
            while True:
                while not exhausted and self.latest(done, next_result) < next_result + 8 * count and (idle := self.idle_worker(count)):
                    task = next(source, None)
                    if task is None:
                        exhausted = True
                        break
                    self.give(idle, task)
                while next_result in done:
                    yield done.pop(next_result)
                    next_result += 1
                if any(one.task for one in self.crew):
                    self.receive(done)
                elif exhausted:
                    return
        finally:
            self.close()

    def latest(self, done: dict[int, Any], next_result: int) -> int:
        """The number of the last task that was given out or finished."""
        return max([next_result, *done, *(one.task[0] for one in self.crew if one.task)])

    def idle_worker(self, count: int) -> Worker | None:
        """A worker without a task; a new one while there are fewer than `count`."""
        idle = next((one for one in self.crew if one.task is None), None)
        if idle is None and len(self.crew) < count:
            idle = self.start()
        return idle

    def start(self) -> Worker:
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self.life()), daemon=True)
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self.crew.append(worker)
        return worker

    def life(self) -> "Life":
        return Life(self.function, self.setting, self.seconds, self.memory_bytes, self.prepare)

    def give(self, worker: Worker, task: tuple[int, Any]) -> None:
        worker.task = task
        try:
            worker.pipe.send(task[1])
        except (BrokenPipeError, ConnectionResetError):
            self.refuse_unready(worker)
            raise

    def receive(self, done: dict[int, Any]) -> None:
        """Waits for at least one message and files what it says."""
        busy = {one.pipe: one for one in self.crew if one.task is not None}
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]
            assert worker.task is not None
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self.refuse_unready(worker)
                done[worker.task[0]] = Killed(worker.task[1], self.seconds)
                self.dismiss(worker)
                continue
            if kind == "ready":
                worker.ready = True
            elif kind == "os error":
                raise value
            elif kind == "error":
                raise RuntimeError(f"a worker failed:\n{value}")
            else:
                done[worker.task[0]] = value
                worker.task = None
                if kind == "last":
                    self.dismiss(worker)

    def dismiss(self, worker: Worker) -> None:
        """Takes a worker out that has ended, or is to end, between two tasks."""
        self.crew.remove(worker)
        worker.pipe.close()
        worker.process.join()

    @staticmethod
    def refuse_unready(worker: Worker) -> None:
        if not worker.ready:
            worker.process.join(5)
            raise RuntimeError(f"a worker process could not start (exit code {worker.process.exitcode})")

    def close(self) -> None:
        for worker in self.crew:
            worker.pipe.close()
            worker.process.kill()
            worker.process.join()
        self.crew.clear()


def limit_memory(more: int) -> None:
    """This process may take `more` bytes beyond what it has reserved by now (libraries reserve much for their threads); Linux only."""
    if sys.platform == "linux":  # elsewhere the limit does not count what is mapped
        lines = Path("/proc/self/status").read_text().splitlines()
        reserved = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
        _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = reserved + more if allowed == resource.RLIM_INFINITY else min(reserved + more, allowed)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, allowed))


def usable_cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(pipe: Connection, life: Life) -> None:
    """A worker's life: a task in, a result out, until the pipe closes or the worker holds too much memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    if life.prepare is not None:
        life.prepare(life.setting)
    limit_memory(HARD_MEMORY)
    own = psutil.Process()
    fresh = own.memory_info().rss
    timed = hasattr(signal, "setitimer")
    if timed:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        if timed:
            signal.setitimer(signal.ITIMER_PROF, life.seconds)
        try:
            answer = ("result", life.function(life.setting, task))
        except MemoryError:
            os._exit(1)  # to the parent a killed worker: what the task was doing cannot be trusted to have been undone
        except OSError as error:  # a full disk, say: the parent raises it as it is
            answer = ("os error", error)
        except Exception:
            answer = ("error", traceback.format_exc())
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if answer[0] == "result" and own.memory_info().rss - fresh > life.memory_bytes:
            pipe.send(("last", answer[1]))
            return
        pipe.send(answer)
