"""A process pool whose workers may die: results come in the order of the tasks, and a task that kills its worker costs only itself.

CPU seconds per task are limited by the kernel's profiling timer, whose signal ends the process even inside C code; they do not depend on
how busy the machine is.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any


@dataclass(frozen=True)
class Killed:
    """The result of a task whose worker died over it; `seconds` is the limit it was under."""

    task: Any
    seconds: float


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
        process = context.Process(target=work, args=(theirs, self.function, self.setting, self.seconds), daemon=True)
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self.crew.append(worker)
        return worker

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
                self.crew.remove(worker)
                worker.pipe.close()
                worker.process.join()
                continue
            if kind == "ready":
                worker.ready = True
            elif kind == "error":
                raise RuntimeError(f"a worker failed:\n{value}")
            else:
                done[worker.task[0]] = value
                worker.task = None

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


def usable_cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(pipe: Connection, function: Callable[[Any, Any], Any], setting: Any, seconds: float) -> None:
    """A worker's life: a task in, a result out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
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
            signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = ("result", function(setting, task))
        except Exception:
            answer = ("error", traceback.format_exc())
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(answer)
