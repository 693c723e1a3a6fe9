"""What the engine itself takes: per tiny task, and of two workers' time."""

import os
import tempfile
import time
from typing import Any

from benchmarks.engine_parts import work
from data_pipeline.engine import Engine


def tiny_tasks(count: int) -> dict[str, Any]:
    """Wall and CPU seconds per task that does nothing, and of a rerun that finds all done."""
    with tempfile.TemporaryDirectory(prefix="phial-tiny-") as folder:
        with Engine(folder, workers=2) as engine:
            list(engine.map(work.tiny, [-1, -2]))  # processes are up
            begun, cpu = time.perf_counter(), cpu_seconds()
            ended = sum(1 for _ in engine.map(work.tiny, range(count)))
            wall = time.perf_counter() - begun
        cpu = cpu_seconds() - cpu  # of the ended children too
        begun = time.perf_counter()
        with Engine(folder, workers=2) as engine:
            again = sum(1 for _ in engine.map(work.tiny, range(count)))
        rerun = time.perf_counter() - begun
    if ended != count or again != count:
        raise RuntimeError(f"{count} tasks were asked for, {ended} came, then {again}")
    facts = {"tasks": count, "wall_s": wall, "wall_ms_per_task": 1000 * wall / count, "tasks_per_s": count / wall}
    return {**facts, "cpu_ms_per_task": 1000 * cpu / count, "rerun_wall_s": rerun, "workers": 2}


def efficiency(tasks: int) -> dict[str, Any]:
    """Busy time over workers times makespan: tasks of CPU work, two workers, from the first plan to the last result."""
    with tempfile.TemporaryDirectory(prefix="phial-busy-") as folder, Engine(folder, workers=2) as engine:
        begun = time.perf_counter()
        first = sum(future.result() for future in engine.map(work.counted, range(-2, 0)))
        start = time.perf_counter() - begun
        begun = time.perf_counter()
        busy = sum(future.result() for future in engine.map(work.counted, range(tasks)))
        makespan = time.perf_counter() - begun
    return {
        "workers": 2,
        "tasks": tasks,
        "task_s": busy / tasks,
        "busy_s": busy,
        "makespan_s": makespan,
        "efficiency": busy / (2 * makespan),
        "efficiency_with_start": (busy + first) / (2 * (makespan + start)),
        "load_average": os.getloadavg()[0],
    }


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
