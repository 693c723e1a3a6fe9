"""One worker process that may be killed at any moment: by us over a limit, by the system, by anybody.

It is a Pebble pool of one. A shared pool would not do: Pebble's workers share one pipe and its locks, and a worker killed while none has a
task breaks the whole pool. Here a death costs one try, and a pool that broke is replaced.
"""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import Any

import psutil
from pebble import ProcessExpired, ProcessPool

from data_pipeline.engine import child
from data_pipeline.engine.book import LIMIT, LOST, RETURNED
from data_pipeline.engine.plans import Order
from data_pipeline.errors import InputError

LOOK_SECONDS = 0.1
SAME_SIGNAL_SECONDS = 0.2  # batch systems signal all processes of a job; then the process's end is no loss
START_SECONDS = 120.0
STARTS = 3  # processes that may die at their start before we say why
MEMORY_GROWTH_BYTES = 768 * 2**20


class WorkerProcess:
    """A process that does one task at a time. It is made when it is needed, and made anew when it has died or grown."""

    def __init__(self, url: str, memory_growth_bytes: int = MEMORY_GROWTH_BYTES) -> None:
        self.url = url
        self.memory_growth_bytes = memory_growth_bytes
        self.pid = 0
        self._fresh_rss = 0
        self._used = False
        self._pool: ProcessPool | None = None

    def start(self) -> None:
        """A process that has answered; InputError where none lives long enough to."""
        for _ in range(STARTS):
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPool(max_workers=1, context=context, initializer=child.begin, initargs=(os.getpid(),))
            try:
                self._used = False
                self.pid, self._fresh_rss = self._pool.schedule(child.hello).result(timeout=START_SECONDS)
                return
            except (ProcessExpired, RuntimeError, NotYet):
                self.close()
        raise InputError(
            "worker processes die at their start; a script that makes an Engine must do so under `if __name__ == '__main__':`, "
            "and there must be memory for them"
        )

    def run(self, order: Order, *, seconds: float | None, memory_bytes: int | None, stop: threading.Event) -> dict[str, Any]:
        """One task; the answer is that of `child.work`, or says that the process was lost, went over a limit, or was told to stop."""
        if not self.pid:
            self.start()
        assert self._pool is not None
        limit = None if seconds is None else time.monotonic() + seconds
        try:
            future = self._pool.schedule(child.work, args=(self.url, order))
        except RuntimeError:  # the idle process was killed, and its pool broke
            self.close()
            return self.run(order, seconds=seconds, memory_bytes=memory_bytes, stop=stop)
        ended: dict[str, Any] = {"kind": LOST, "text": "its process died"}
        while True:
            try:
                answer = future.result(timeout=LOOK_SECONDS)
                break
            except NotYet:
                if (found := self._over(limit, seconds, memory_bytes, stop)) is not None and ended["kind"] == LOST:
                    ended = found
                    kill_tree(self.pid)
            except (ProcessExpired, RuntimeError) as error:
                self.pid = 0
                code = getattr(error, "exitcode", None)
                if ended["kind"] == LOST and stop.wait(SAME_SIGNAL_SECONDS):
                    return {"kind": RETURNED, "text": "its worker was told to stop"}
                return ended if ended["kind"] != LOST else {**ended, "text": f"its process died ({told(code)})"}
        if ended["kind"] != LOST:  # it answered while it was being killed: the next task would lose its process
            self.close()
            return answer
        if answer["kind"] == "refused" and self._used:  # it holds a module as it was some tasks ago
            self.close()
            return self.run(order, seconds=seconds, memory_bytes=memory_bytes, stop=stop)
        self._used = True
        if answer.get("rss", 0) - self._fresh_rss > self.memory_growth_bytes:
            self.close()
        return answer

    def _over(self, limit: float | None, seconds: float | None, memory_bytes: int | None, stop: threading.Event) -> dict[str, Any] | None:
        if stop.is_set():
            return {"kind": RETURNED, "text": "its worker was told to stop"}
        if limit is not None and time.monotonic() > limit:
            return {"kind": LIMIT, "text": f"over its limit of {seconds:g} seconds"}
        if memory_bytes is not None and (held := memory_of(self.pid)) > memory_bytes:
            return {"kind": LIMIT, "text": f"over its limit of {memory_bytes} bytes of memory, held {held}"}
        return None

    def close(self) -> None:
        """Ends the process and its children at once."""
        if self._pool is None:
            return
        if self.pid:
            kill_tree(self.pid)
        self.pid = 0
        with suppress(RuntimeError):
            self._pool.stop()
            self._pool.join()
        self._pool = None


def told(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, itself last."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def memory_of(pid: int) -> int:
    """Resident bytes of a process and all that it has started."""
    total = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def kill_tree(pid: int) -> None:
    """Kills a process and all that it has started, also where it hangs in C code."""
    for process in reversed(family(pid)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
