"""A Ray node that is removed while its workers are at their tasks."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.engine_parts import work
from benchmarks.engine_parts.driver import SALT
from benchmarks.engine_parts.servers import ray_cluster


def removed_node(tasks: int, mean: float) -> dict[str, Any]:
    """A head with one core and a node with one; the node goes when a third of the tasks are done."""
    from data_pipeline.engine import Engine, Limits

    with tempfile.TemporaryDirectory(prefix="phial-node-") as folder, ray_cluster([1, 1]) as cluster:
        log = f"{folder}/calls"
        parameters = [(log, number, seconds) for number, seconds in enumerate(work.durations(tasks, mean))]
        begun = time.perf_counter()
        wrong, count, removed_at = 0, 0, 0.0
        with Engine(f"{folder}/journal", workers="ray", ray={"address": cluster.address}, ray_workers=2) as engine:
            for future in engine.map(work.timed, parameters, salt=engine.bcast(SALT), limits=Limits(backoff_seconds=0.05)):
                wrong += future.result()[0] != work.right(future.parameters[1], SALT)
                count += 1
                if not removed_at and count >= tasks / 3:
                    (node,) = cluster.worker_nodes
                    cluster.remove_node(node, allow_graceful=False)
                    removed_at = time.perf_counter() - begun
            costs = engine.costs()
        wall = time.perf_counter() - begun
        calls = len(Path(log).read_text().split("\n")) - 1
    facts = {"tasks": tasks, "mean_task_s": mean, "results": count, "wrong_results": wrong, "calls": calls, "removed_at_s": removed_at}
    return {**facts, "wall_s": wall, "costs": vars(costs)}
