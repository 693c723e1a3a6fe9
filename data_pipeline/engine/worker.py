"""Workers: threads that pick a free task, have it done by a process of their own, and write what came of it. The same loop everywhere.

A `Crew` is the workers of one process. The driver has one, `phial worker` is one, and so is each task that Ray is given.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from data_pipeline.engine.book import LOST, OWN, RETURNED, Book
from data_pipeline.engine.leases import LEASE_SECONDS, Claim, Leases
from data_pipeline.engine.picker import Item, Picker
from data_pipeline.engine.plans import Plan
from data_pipeline.engine.process import MEMORY_GROWTH_BYTES, WorkerProcess
from data_pipeline.engine.store import Store

WAIT_SECONDS = (0.1, 2.0)  # the first and the longest pause when there is nothing to claim


class Crew:
    """Workers over the plans that are opened to them.

    `on_end(task, dead_after)` hears, from their threads, of each task that is done (None) or dead (its last try).
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int,
        lease_seconds: float = LEASE_SECONDS,
        memory_growth_bytes: int = MEMORY_GROWTH_BYTES,
        on_end: Callable[[str, int | None], None] | None = None,
    ) -> None:
        self.store = store
        self.book = Book(store)
        self.leases = Leases(store, lease_seconds)
        self.picker = Picker(self.book, self.leases)
        self.memory_growth_bytes = memory_growth_bytes
        self.workers = workers
        self.on_end = on_end or (lambda task, dead_after: None)
        self.stop = threading.Event()
        self.hold = threading.Event()  # claims nothing more, but ends what is under way
        self.did = 0
        self.busy = 0  # tries under way
        self.error: BaseException | None = None
        self._pause = WAIT_SECONDS[0]
        self._news = threading.Condition()
        self._threads: list[threading.Thread] = []

    def open(self, plan: Plan) -> None:
        """Gives the workers a plan, and starts them if nobody has."""
        self.picker.open(plan)
        self.wake()
        if not self._threads and not self.stop.is_set():
            self._threads = [threading.Thread(target=self._loop, name=f"worker-{n}", daemon=True) for n in range(self.workers)]
            for thread in self._threads:
                thread.start()

    def wake(self) -> None:
        with self._news:
            self._pause = WAIT_SECONDS[0]
            self._news.notify_all()

    def close(self) -> None:
        """Gives back what is under way and ends every process; where the budget is spent, what is under way comes to its end first."""
        try:
            while self.hold.is_set() and self.busy and not self.stop.wait(WAIT_SECONDS[0]):
                pass
        finally:
            self.stop.set()
        self.wake()
        for thread in self._threads:
            thread.join()
        self.leases.close()

    def _loop(self) -> None:
        process = WorkerProcess(self.store.url, self.memory_growth_bytes)
        try:
            while not self.stop.is_set():
                with self._news:  # busy before it claims, so that whoever sees nobody busy knows that no claim is held
                    self.busy += 1
                try:
                    found = None if self.hold.is_set() else self.picker.next()
                    if found is not None:
                        self._do(process, *found)
                        continue
                finally:
                    with self._news:
                        self.busy -= 1
                with self._news:
                    self._news.wait(self._pause)
                    self._pause = min(1.5 * self._pause, WAIT_SECONDS[1])
        except BaseException as error:  # whoever waits for the crew raises it; a thread that just ended would be silence
            self.error = self.error or error
            self.stop.set()
        finally:
            process.close()

    def _do(self, process: WorkerProcess, item: Item, claim: Claim) -> None:
        """One try, from its claim to what came of it; the lease is renewed until that is written."""
        begun = time.monotonic()
        try:
            answer = self._answer(process, item, claim)
            seconds = round(time.monotonic() - begun, 6)
            settle = self._commit if answer["kind"] == "done" else self._fail
            if settle(item, claim, answer, seconds):
                self.on_end(item.task, None if answer["kind"] == "done" else claim.number)
        finally:
            self.leases.drop(claim)

    def _answer(self, process: WorkerProcess, item: Item, claim: Claim) -> dict[str, Any]:
        limits = item.plan.limits
        order = item.plan.order(item.index)
        try:
            return process.run(order, seconds=limits["seconds"], memory_bytes=limits["memory_bytes"], stop=self.stop)
        except BaseException:  # no process can be started here: the task is not to blame
            self.book.fail(item.task, claim.number, RETURNED, text="its worker could not go on", seconds=0.0, at=time.time())
            raise

    def _commit(self, item: Item, claim: Claim, answer: dict[str, Any], seconds: float) -> bool:
        facts = {name: answer[name] for name in ("value", "bytes", "sha256", "cpu_seconds")}
        record = {"task": item.task, "try": claim.number, "worker": claim.worker, "seconds": seconds, "at": time.time(), **facts}
        if self.book.commit(item.task, record):
            self.did += 1
            return True
        self.book.fail(item.task, claim.number, RETURNED, text="another worker's result came first", seconds=seconds, at=time.time())
        first = self.book.done(item.task)
        if first is not None and first["value"] != answer["value"]:
            self.store.remove(answer["value"])
        return True

    def _fail(self, item: Item, claim: Claim, answer: dict[str, Any], seconds: float) -> bool:
        """Writes why the try failed; true where the task is thereby given up."""
        kind: str = {"refused": RETURNED, "store": LOST}.get(answer["kind"]) or answer["kind"]
        facts = {name: answer[name] for name in ("text", "trace", "error") if answer.get(name)}
        self.book.fail(item.task, claim.number, kind, seconds=seconds, at=time.time(), worker=claim.worker, **facts)
        if answer["kind"] == "refused":
            self.picker.refuse(item.plan, answer["text"])
        if kind not in (*OWN, LOST):
            return False
        return self.picker.bury(Item(item.plan, item.index, claim.number, (*item.failed, claim.number)))
