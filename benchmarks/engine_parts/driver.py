"""The driver that the benchmark kills: python -m benchmarks.engine_parts.driver JOURNAL WORKERS TASKS MEAN_SECONDS LOG"""

import sys
import time

from benchmarks.engine_parts import work
from data_pipeline.engine import Engine, Limits
from data_pipeline.storage import write_json

SALT = "phial"


def main(journal: str, workers: str, tasks: int, mean: float, log: str) -> None:
    begun = time.perf_counter()
    parameters = [(log, number, seconds) for number, seconds in enumerate(work.durations(tasks, mean))]
    with Engine(journal, workers="ray" if workers == "ray" else int(workers)) as engine:
        salt = engine.bcast(SALT)
        wrong, seconds = 0, []
        for future in engine.map(work.timed, parameters, salt=salt, limits=Limits(losses=50, backoff_seconds=0.05)):
            value, took = future.result()
            wrong += value != work.right(future.parameters[1], SALT)
            seconds.append(took)
        costs = engine.costs()
        done = len(engine.store.names("done"))
    facts = {
        "results": len(seconds),
        "wrong": wrong,
        "done_records": done,
        "task_seconds": seconds,
        "last_driver_s": time.perf_counter() - begun,
    }
    write_json(f"{log}.json", {**facts, "costs": vars(costs)})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
