"""Simulated: a thousand spot workers under the engine's rules, task durations drawn from measured ones. Nothing of it was run.

Events: a worker claims the next free task and needs `overhead` more than its work; a machine is taken away at random (exponential, mean
`life`), with notice for a part of them: then the claim is given back at once, else it is free one lease after its last renewal. The machine
comes again after `away`. What is simulated is the engine's own bookkeeping, not a store or a network.
"""

import heapq
import random
from typing import Any


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
    draw = random.Random(seed)
    work = [scale * draw.choice(measured) for _ in range(workers * tasks_per_worker)]
    free = list(range(len(work)))[::-1]
    freed: list[tuple[float, int]] = []  # (when, task) given back or expired
    ready = [(0.0, draw.expovariate(1 / life)) for _ in range(workers)]  # (when a worker is idle, when its machine goes)
    heapq.heapify(ready)
    done, lost, returned, lost_seconds, busy, makespan = 0, 0, 0, 0.0, 0.0, 0.0
    while done < len(work):
        now, goes = heapq.heappop(ready)
        if now >= goes:
            heapq.heappush(ready, (goes + away, goes + away + draw.expovariate(1 / life)))
            continue
        while freed and freed[0][0] <= now:
            free.append(heapq.heappop(freed)[1])
        if not free:
            later = freed[0][0] if freed else None
            if later is None:  # all is under way or done: this worker is not needed any more
                continue
            heapq.heappush(ready, (max(later, now), goes))
            continue
        task = free.pop()
        ends = now + work[task] + overhead
        if ends <= goes:
            done += 1
            busy += work[task]
            makespan = max(makespan, ends)
            heapq.heappush(ready, (ends, goes))
            continue
        if draw.random() < noticed:
            returned += 1
            heapq.heappush(freed, (goes, task))
        else:
            lost += 1
            heapq.heappush(freed, (goes + lease * draw.uniform(2 / 3, 1), task))
        lost_seconds += goes - now
        heapq.heappush(ready, (goes, goes))
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
