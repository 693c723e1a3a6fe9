"""Simulated: a thousand spot workers under the engine's rules, task durations drawn from measured ones. Nothing of it was run.

Events: a worker claims the next free task and needs `overhead` more than its work; a machine is taken away at random (exponential, mean
`life`), with notice for a part of them: then the claim is given back at once, else it is free one lease after its last renewal. The machine
comes again after `away`. What is simulated is the engine's own bookkeeping, not a store or a network.
"""

import heapq
import random
from typing import Any


class Fleet:
    """What happens next: a worker is ready (its machine goes at `goes`), or a task is free again. Workers without work stand by."""

    def __init__(self, draw: random.Random, mean_life: float, away: float) -> None:
        self.draw = draw
        self.mean_life = mean_life
        self.away = away
        self.idle: list[float] = []  # when the machines of those who stand by go
        self._events: list[tuple[float, int, int | None, float]] = []
        self._count = 0

    def life(self) -> float:
        return self.draw.expovariate(1 / self.mean_life)

    def ready(self, when: float, goes: float) -> None:
        self._push(when, None, goes)

    def freed(self, when: float, task: int) -> None:
        self._push(when, task, 0.0)

    def _push(self, when: float, task: int | None, goes: float) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, task, goes))

    def next(self) -> tuple[float, int | None, float]:
        when, _, task, goes = heapq.heappop(self._events)
        return when, task, goes

    def wake(self, now: float) -> None:
        """One of those who stand by is ready; who lost the machine while standing by comes when it is there again."""
        while self.idle:
            goes, begins = self.idle.pop(), now
            while goes <= now:
                begins = goes + self.away
                goes = begins + self.life()
            self.ready(max(now, begins), goes)
            if begins <= now:
                return


def simulate(
    measured: list[float],
    *,
    workers: int = 1000,
    tasks_per_worker: int = 50,
    scale: float,
    overhead: float,
    life: float,
    away: float = 120.0,
    noticed: float = 0.5,
    lease: float = 60.0,
    seed: int = 3,
) -> dict[str, Any]:
    """Makespan and what was lost; `scale` stretches the measured seconds to tasks of minutes."""
    fleet = Fleet(random.Random(seed), life, away)
    draw = fleet.draw
    work = [scale * draw.choice(measured) for _ in range(workers * tasks_per_worker)]
    free = list(range(len(work)))[::-1]
    for _ in range(workers):
        fleet.ready(0.0, fleet.life())
    done, lost, returned, lost_seconds, busy, makespan = 0, 0, 0, 0.0, 0.0, 0.0
    while done < len(work):
        now, task, goes = fleet.next()
        if task is not None:  # somebody had it, and has it no more
            free.append(task)
            fleet.wake(now)
            continue
        if now >= goes:
            begins = goes + away
            fleet.ready(begins, begins + fleet.life())
            continue
        if not free:
            fleet.idle.append(goes)
            continue
        task = free.pop()
        ends = now + work[task] + overhead
        if ends <= goes:
            done += 1
            busy += work[task]
            makespan = max(makespan, ends)
            fleet.ready(ends, goes)
            continue
        with_notice = draw.random() < noticed
        returned += with_notice
        lost += not with_notice
        lost_seconds += goes - now
        fleet.freed(goes if with_notice else goes + lease * draw.uniform(2 / 3, 1), task)
        fleet.ready(goes, goes)
    return {
        "kind": "simulated",
        "workers": workers,
        "tasks": len(work),
        "mean_task_s": sum(work) / len(work),
        "machine_life_s": life,
        "machine_away_s": away,
        "noticed_share": noticed,
        "lease_s": lease,
        "overhead_s": overhead,
        "makespan_s": makespan,
        "ideal_s": sum(work) / workers,
        "efficiency": busy / (workers * makespan),
        "lost": lost,
        "returned": returned,
        "lost_share_of_time": lost_seconds / (workers * makespan),
    }
