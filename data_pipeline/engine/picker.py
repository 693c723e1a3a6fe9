"""Which task comes next: what is free in the journal, and what was held by workers that are gone."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipeline.engine.book import LOST, OWN, Book, View
from data_pipeline.engine.leases import Claim, Leases
from data_pipeline.engine.plans import Plan

LOOK_AGAIN_SECONDS = 5.0  # how old may be what is known of other workers, while there are tasks to claim
LOOK_COST = 20  # and never more than one twentieth of the time goes into listings
COLLISIONS = 3  # claims lost to others, after which the journal is looked at again
HELD_LOOKS = 16  # claims of others that are looked into at once
PAUSED = "paused.json"


@dataclass(frozen=True)
class Item:
    """One task of a plan as it was when it was found free: the number of its next try, and the failed ones that count."""

    plan: Plan
    index: int
    number: int
    failed: tuple[int, ...]

    @property
    def task(self) -> str:
        return self.plan.tasks[self.index]


class Picker:
    """What the workers of one process know of the journal, shared by its threads."""

    def __init__(self, book: Book, leases: Leases) -> None:
        self.book = book
        self.leases = leases
        self.refused: dict[str, str] = {}  # plan -> why its code is not ours
        self.paused = False  # the driver's budget is spent
        self.finished = False  # at the last look no task was open
        self._plans: dict[str, Plan] = {}
        self._opened: Counter[str] = Counter()  # plan -> who waits for it; a second call of map may, while the first is still open
        self._free: list[Item] = []
        self._good_until = 0.0
        self._lock = threading.Lock()
        self._random = random.Random()  # where a process begins in the list; only that it differs from others' matters

    def open(self, plan: Plan) -> None:
        with self._lock:
            self._plans[plan.id] = plan
            self._opened[plan.id] += 1
            self._good_until, self.finished = 0.0, False

    def shut(self, plan: Plan) -> None:
        with self._lock:
            self._opened[plan.id] -= 1
            if self._opened[plan.id] > 0:
                return
            self._plans.pop(plan.id, None)
            self._free = [item for item in self._free if item.plan.id != plan.id]

    def refuse(self, plan: Plan, why: str) -> None:
        with self._lock:
            self.refused[plan.id] = why
            self._free = [item for item in self._free if item.plan.id != plan.id]

    def next(self) -> tuple[Item, Claim] | None:
        """A task that is ours from now on; None where there is nothing to claim at this moment."""
        collisions = 0
        while (item := self._pop(look=collisions == COLLISIONS)) is not None:
            claim = self.leases.take(item.task, item.number)
            if claim is not None:
                return item, claim
            collisions += 1
            if collisions > 2 * COLLISIONS:  # many are at the few tasks that are left: wait a little
                return None
        return None

    def _pop(self, look: bool) -> Item | None:
        with self._lock:
            if look or time.monotonic() > self._good_until:
                self._look()
            if not self._free:
                self._good_until = 0.0
                return None
            return self._free.pop()

    def _look(self) -> None:
        begun = time.monotonic()
        self.paused = self._is_paused()
        view = self.book.view()
        free, held, waiting = self._sort(view)
        if not free and held:
            self._random.shuffle(held)
            free = [item for plan, index in held[:HELD_LOOKS] if (item := self._take_over(plan, index, view)) is not None]
        start = self._random.randrange(len(free)) if free else 0
        self._free = [] if self.paused else list(reversed([*free[start:], *free[:start]]))
        self.finished = not (free or held or waiting)
        now = time.monotonic()
        self._good_until = now + max(LOOK_AGAIN_SECONDS, LOOK_COST * (now - begun))

    def _is_paused(self) -> bool:
        try:
            self.book.store.read(PAUSED)
        except FileNotFoundError:
            return False
        return True

    def _open_tasks(self, view: View) -> Iterator[tuple[Plan, int, str]]:
        seen: set[str] = set()
        for plan in self._plans.values():
            if plan.id in self.refused:
                continue
            for index, task in enumerate(plan.tasks):
                if task not in seen and view.open(task):
                    seen.add(task)
                    yield plan, index, task

    def _sort(self, view: View) -> tuple[list[Item], list[tuple[Plan, int]], int]:
        """Tasks that are free, those at which somebody seems to be, and how many wait for their next try."""
        free: list[Item] = []
        held: list[tuple[Plan, int]] = []
        waiting = 0
        for plan, index, task in self._open_tasks(view):
            if view.held(task):
                held.append((plan, index))
            elif task in view.tries and self.book.pause(task, view, plan.limits["backoff_seconds"], time.time()) > 0:
                waiting += 1
            else:
                free.append(Item(plan, index, view.next_try(task), tuple(view.counted(task))))
        return free, held, waiting

    def _take_over(self, plan: Plan, index: int, view: View) -> Item | None:
        """The task, free again, where the worker that held it is gone and has left no result."""
        task = plan.tasks[index]
        number = view.claims[task]
        claim = self.leases.holder_gone(task, number)
        if claim is None or self.book.done(task) is not None:
            return None
        busy = max(0.0, claim["expires"] - claim["lease"] - claim["since"]) if "since" in claim else 0.0
        text = f"its worker was lost: process {claim.get('pid')} on {str(claim.get('machine')).partition(' ')[0]}"
        self.book.fail(task, number, LOST, text=text, seconds=busy, at=time.time(), worker=claim.get("worker"))
        failed = (*view.counted(task), number)
        if self.bury(Item(plan, index, number, failed)):
            return None
        return Item(plan, index, number + 1, failed)

    def bury(self, item: Item) -> bool:
        """Gives the task up if it has failed as often as its limits allow; `item.failed` ends with the last try."""
        records = [record for number in item.failed if (record := self.book.tried(item.task, number)) is not None]
        kinds = [record["kind"] for record in records]
        limits = item.plan.limits
        if sum(kind in OWN for kind in kinds) < limits["retries"] and kinds.count(LOST) < limits["losses"]:
            return False
        self.book.bury(item.task, item.failed[-1], item.plan.id, item.index, records[-1].get("text", ""))
        return True
