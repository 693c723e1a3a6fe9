"""The one API: functions over many parameters, on this machine, on Ray, or by workers that come by themselves.

    with Engine("runs/mine/tasks", workers=2) as engine:
        table = engine.bcast(rows)
        for future in engine.map(clean, pages, table=table, limits=Limits(seconds=60)):
            print(future.parameters, future.result())

A task is known by the function's name, the source of its module, its parameter and the references: what was done once is not done again,
by whoever asks. The format of the journal and what happens when something dies: docs/engine.md.
"""

import pickle
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipeline.engine.book import Book, View
from data_pipeline.engine.futures import Future
from data_pipeline.engine.leases import LEASE_SECONDS
from data_pipeline.engine.ledger import Costs, Ledger
from data_pipeline.engine.picker import PAUSED
from data_pipeline.engine.plans import ONE, TWO, Plan, make_plan, pickled, read_parameter, read_plan
from data_pipeline.engine.process import MEMORY_GROWTH_BYTES
from data_pipeline.engine.references import Ref, put_object
from data_pipeline.engine.settings import Budget, Limits
from data_pipeline.engine.store import Store
from data_pipeline.engine.worker import Crew
from data_pipeline.errors import InputError

POLL_SECONDS = (0.05, 1.0)  # the first and the longest pause between two looks at what others have done
OWN_POLL_SECONDS = (1.0, 5.0)  # the same where our own workers tell what they did
CHECK_SECONDS = 0.25  # between two looks at our own workers' health
POLL_COST = 10  # and never more than a tenth of the time
BUDGET_SECONDS = 0.5  # between two sums of what was spent

News = queue.SimpleQueue[tuple[str, int | None]]  # a task that ended, and after which try if it is dead


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A task that was given up."""

    task: str
    parameters: Any
    error: str


class Engine:
    """The driver of a journal on any fsspec store.

    `workers` is a number of processes here, "ray", or 0: only plan and wait, while `phial worker --journal URL` does the work elsewhere.
    `ray` goes to `ray.init`; `ray_workers` is how many tasks Ray is given (else as many as the cluster has cores).
    """

    def __init__(
        self,
        journal: str | Path,
        workers: int | Literal["ray"] = 1,
        *,
        budget: Budget | None = None,
        lease_seconds: float = LEASE_SECONDS,
        memory_growth_bytes: int = MEMORY_GROWTH_BYTES,
        ray: dict[str, Any] | None = None,
        ray_workers: int | None = None,
    ) -> None:
        if workers != "ray" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
            raise InputError(f'Engine: workers is a number of processes, 0 for none here, or "ray"; got {workers!r}')
        if lease_seconds <= 0:
            raise InputError(f"Engine: lease_seconds above 0 is needed, got {lease_seconds!r}")
        self.store = Store(journal)
        self.store.open_journal()
        self.budget = budget
        self.book = Book(self.store)
        self.ledger = Ledger(self.book)
        self._listeners: list[News] = []
        self._sum_at = 0.0
        self._closed = self._paused = False
        self._crew: Crew | None = None
        self._cluster: Any = None
        if workers == "ray":
            from data_pipeline.engine.ray_workers import Cluster

            self._cluster = Cluster(self.store.url, ray or {}, ray_workers, lease_seconds, memory_growth_bytes)
        elif workers:
            self._crew = Crew(
                self.store,
                workers=workers,
                lease_seconds=lease_seconds,
                memory_growth_bytes=memory_growth_bytes,
                on_end=self._tell,
            )

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers that this engine started; what they were at is given back, or done first where the budget is spent."""
        self._closed = True
        if self._crew is not None:
            self._crew.close()
        if self._cluster is not None:
            self._cluster.close(paused=self._paused)

    def bcast(self, value: Any) -> Ref:
        """Uploads a value once, whoever does so first; workers read it once per process, through `.get()`."""
        sha256 = put_object(self.store, pickled(value, "the value"))
        return Ref(self.store.url, f"objects/{sha256}", sha256)

    def map(
        self, function: Callable[..., Any], parameters: Iterable[Any], *, limits: Limits | None = None, **references: Any
    ) -> Iterator[Future]:
        """`function(parameter, **references)` for each parameter; futures come as their tasks end, first those of earlier runs.

        The plan is written, and bad input refused, before this returns. Raises InputError when the budget is spent, or where the workers'
        code is not that of the plan; nothing for a task that is dead, which only its `result()` does.
        """
        return self._map(function, ONE, list(parameters), limits or Limits(), references)

    def reduce(self, function: Callable[[Any, Any], Any], values: Iterable[Any], *, limits: Limits | None = None) -> Any:
        """Neighbours are joined by `function(left, right)` until one value is left: a tree whose shape depends on their number alone.

        Futures take the order of their parameters in `map`, however they came; their values go from store to worker. Other values keep
        their places. Raises a dead task's error, and InputError where there is nothing to reduce.
        """
        given = list(values)
        if not given:
            raise InputError("reduce: at least one value is needed, got none")
        if any(isinstance(each, Future) for each in given):
            if not all(isinstance(each, Future) for each in given):
                raise InputError("reduce: futures or values are needed, got some of each")
            given = [future.reference() for future in sorted(given, key=lambda future: (future.index, future.task_id))]
        while len(given) > 1:
            pairs = list(zip(given[::2], given[1::2], strict=False))
            joined = sorted(self._map(function, TWO, pairs, limits or Limits(), {}), key=lambda future: future.index)
            given = [future.reference() for future in joined] + given[2 * len(pairs) :]
        return pickle.loads(given[0].read()) if isinstance(given[0], Ref) else given[0]

    def dead_letters(self) -> list[DeadLetter]:
        """The tasks of this journal that were given up, each with its parameter and its last error."""
        letters = []
        view = self.book.view()
        for task, number in sorted(view.dead.items()):
            record = self.book.record(f"dead/{task}.{number}.json")
            if record is not None:
                order = read_plan(self.store, record["plan"]).order(record["index"])
                letters.append(DeadLetter(task=task, parameters=read_parameter(self.store, order), error=record["text"]))
        return letters

    def revive(self, tasks: Iterable[str] | None = None) -> int:
        """Gives dead tasks (all, or those named) all their tries again; returns how many. Standing workers do them, and so does `map`."""
        view = self.book.view()
        chosen = sorted(view.dead if tasks is None else view.dead.keys() & set(tasks))
        self.book.revive(chosen, view)
        if self._crew is not None:
            self._crew.wake()
        return len(chosen)

    def costs(self) -> Costs:
        """What the journal has cost so far, this run and those before it."""
        self.ledger.update()
        return self.ledger.costs(self.budget.price_per_core_hour if self.budget is not None else 0.0)

    def _tell(self, task: str, dead_after: int | None) -> None:
        for listener in list(self._listeners):
            listener.put((task, dead_after))

    def _map(
        self, function: Callable[..., Any], form: str, parameters: list[Any], limits: Limits, references: dict[str, Any]
    ) -> Iterator[Future]:
        if not parameters:
            return iter(())
        plan = make_plan(self.store, function, form, parameters, references, limits.model_dump())
        view = self.book.view(values=True)
        for task in view.done.intersection(plan.tasks) - view.values:
            self.book.undo(task)
            view.done.discard(task)
        opened = any(view.open(task) for task in plan.tasks)
        if opened:  # what is done costs nothing, also when the budget is spent
            self._open_budget()
        news: News = queue.SimpleQueue()
        self._listeners.append(news)
        if opened:
            if self._crew is not None:
                self._crew.open(plan)
            if self._cluster is not None:
                self._cluster.open(plan)
        return self._collect(plan, parameters, view, news, opened)

    def _collect(self, plan: Plan, parameters: list[Any], view: View, news: News, opened: bool) -> Iterator[Future]:
        """Futures as tasks end: our own workers tell at once, of others' work the journal does."""
        places: dict[str, list[int]] = {}
        for index, task in enumerate(plan.tasks):
            places.setdefault(task, []).append(index)
        shortest, longest = POLL_SECONDS if self._crew is None else OWN_POLL_SECONDS
        pause, look_at = shortest, time.monotonic() + shortest
        ended = list(view.ended(places))
        try:
            while True:
                for task, dead_after in ended:
                    pause = shortest
                    for index in places.pop(task, ()):
                        yield Future(self.book, index=index, parameters=parameters[index], task_id=task, dead_after=dead_after)
                if not places:
                    return
                self._check(plan)
                ended = drain(news, min(CHECK_SECONDS, max(0.0, look_at - time.monotonic())))
                begun = time.monotonic()
                if begun >= look_at:
                    ended += self.book.view().ended(places)
                    pause = min(1.5 * pause, longest)
                    look_at = time.monotonic() + max(pause, POLL_COST * (time.monotonic() - begun))
        finally:
            self._listeners.remove(news)
            if self._crew is not None and opened:
                self._crew.picker.shut(plan)

    def _check(self, plan: Plan) -> None:
        """Raises what ended the workers, and the line of a budget that is spent."""
        if self._closed:
            raise InputError(f"{self.store.url}: the engine is closed, and tasks are open; take the futures inside its `with` block")
        if self._cluster is not None:
            self._cluster.check()
        if self._crew is not None:
            if (why := self._crew.picker.refused.get(plan.id)) is not None:
                raise InputError(f"{why}; start the program again, so that plan and workers have the same code")
            if self._crew.error is not None:
                raise self._crew.error
        if self.budget is not None and time.monotonic() >= self._sum_at:
            begun = time.monotonic()
            self._sum()
            self._sum_at = time.monotonic() + max(BUDGET_SECONDS, POLL_COST * (time.monotonic() - begun))

    def _sum(self) -> None:
        limit = self.budget.core_seconds if self.budget is not None else None
        if limit is None or (spent := self.costs()).core_seconds < limit:
            return
        if self._crew is not None:
            self._crew.hold.set()
        self.store.write(PAUSED, b"{}")
        self._paused = True
        assert self.budget is not None
        sums = f"{spent.core_seconds / 3600:.6g} core-hours of {limit / 3600:.6g}"
        if self.budget.money is not None:
            sums += f", {spent.money:.6g} of {self.budget.money:.6g} in money"
        raise InputError(f"{self.store.url}: the budget is spent: {sums}; raise it and run again to go on, what is done is kept")

    def _open_budget(self) -> None:
        """Lets workers claim again unless the budget is spent."""
        self._sum()
        self.store.remove(PAUSED)
        self._paused = False
        if self._crew is not None:
            self._crew.hold.clear()
            self._crew.wake()


def drain(news: News, timeout: float) -> list[tuple[str, int | None]]:
    """All that was told by now; waits for the first at most so long."""
    found: list[tuple[str, int | None]] = []
    with suppress(queue.Empty):
        found.append(news.get(timeout=timeout) if timeout > 0 else news.get_nowait())
        while True:
            found.append(news.get_nowait())
    return found
