"""The task engine under kills, its overhead and its efficiency.

    python -m benchmarks.engine_tasks [--parts local ray s3 node tiny efficiency spot] [--tasks 500] [--tiny 10000] [--out FILE]

    local, ray, s3   --tasks tasks, two workers; a random one is killed with signal 9 every --every seconds, the driver twice   measured
    node             a Ray node removed under its tasks                                                                         measured
    tiny             --tiny tasks that do nothing: wall and CPU time per task                                                   measured
    efficiency       busy time over workers times makespan, two workers, tasks of CPU work                                      measured
    spot             a thousand spot workers, their tasks as long as the measured ones, stretched to minutes                    simulated

Parts that are not asked for stay in the file as they were, each with its own machine, commit and date. Writes
benchmarks/results/tasks.json.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks.engine_parts.kills import killed_run
from benchmarks.engine_parts.node import removed_node
from benchmarks.engine_parts.overhead import efficiency, tiny_tasks
from benchmarks.engine_parts.spot import simulate
from data_pipeline.errors import InputError
from data_pipeline.provenance import provenance
from data_pipeline.storage import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "tasks.json"
PARTS = ("local", "ray", "s3", "node", "tiny", "efficiency", "spot")
STRETCH_TO_SECONDS = 180.0  # the mean of a simulated task
LIVES_HOURS = (1.0, 4.0, 24.0)


def measure(part: str, given: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    if part in ("local", "ray", "s3"):
        return {"kind": "measured", **killed_run(part, given.tasks, given.mean, given.every)}
    if part == "node":
        return {"kind": "measured", **removed_node(given.node_tasks, given.mean)}
    if part == "tiny":
        return {"kind": "measured", **tiny_tasks(given.tiny)}
    if part == "efficiency":
        return {"kind": "measured", **efficiency(given.busy_tasks)}
    return spot(before)


def spot(before: dict[str, Any]) -> dict[str, Any]:
    """The simulation, fed by the durations of the part `local` and the overhead of the part `tiny`."""
    if "local" not in before or "tiny" not in before:
        raise InputError("spot: the parts local and tiny are needed in the results first; they give durations and overhead")
    measured = before["local"]["task_seconds"]
    overhead = 2 * before["tiny"]["wall_s"] / before["tiny"]["tasks"]
    scale = STRETCH_TO_SECONDS * len(measured) / sum(measured)
    runs = [simulate(measured, scale=scale, overhead=overhead, life=3600 * hours) for hours in LIVES_HOURS]
    return {"kind": "simulated", "stretched_by": scale, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--mean", type=float, default=0.3, help="mean seconds of a task in the runs with kills")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--node-tasks", type=int, default=60)
    parser.add_argument("--busy-tasks", type=int, default=200)
    parser.add_argument("--tiny", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results: dict[str, Any] = read_json(given.out) if given.out.exists() else {}
    origin = provenance("ray", "pebble", "fsspec", "s3fs", "moto")  # before the results file itself is a change
    for part in sorted(given.parts, key=PARTS.index):
        results[part] = {**measure(part, given, results), **origin}
        write_json(given.out, results)
        shown = {name: value for name, value in results[part].items() if name not in ("task_seconds", "machine", "runs")}
        print(part, shown)
        for run in results[part].get("runs", []):
            print("  ", run)


if __name__ == "__main__":
    main()
