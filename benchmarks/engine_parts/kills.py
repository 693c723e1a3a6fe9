"""A run whose workers are killed with signal 9 every few seconds, and its driver twice; locally, on Ray, through S3."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.engine_parts.servers import ray_cluster, s3_server
from data_pipeline.storage import read_json

ROOT = Path(__file__).resolve().parents[2]
DRIVER_KILLS = (1 / 3, 2 / 3)  # of the tasks done


def killed_run(place: str, tasks: int, mean: float, every: float) -> dict[str, Any]:
    """`place` is "local", "ray" or "s3"."""
    with tempfile.TemporaryDirectory(prefix="phial-kills-") as folder:
        if place == "s3":
            with s3_server(Path(folder)) as (url, environment):
                return watch(Path(folder), url, "2", environment, tasks, mean, every)
        if place == "ray":
            with ray_cluster([2]) as cluster:
                return watch(Path(folder), f"{folder}/journal", "ray", {"RAY_ADDRESS": cluster.address}, tasks, mean, every)
        return watch(Path(folder), f"{folder}/journal", "2", {}, tasks, mean, every)


def watch(folder: Path, journal: str, workers: str, environment: dict[str, str], tasks: int, mean: float, every: float) -> dict[str, Any]:
    """Starts the driver, kills, starts it again, and reports what the last one found."""
    log = folder / "calls"
    log.touch()
    command = [sys.executable, "-m", "benchmarks.engine_parts.driver", journal, workers, str(tasks), str(mean), str(log)]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})

    draw, begun = random.Random(11), time.perf_counter()
    driver, killed_workers, killed_drivers, next_kill = start(), 0, 0, every
    while driver.poll() is None:
        time.sleep(0.1)
        lines = log.read_text().split("\n")[:-1]
        if killed_drivers < len(DRIVER_KILLS) and len(lines) >= DRIVER_KILLS[killed_drivers] * tasks:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            killed_drivers += 1
            driver = start()
        elif time.perf_counter() - begun > next_kill:
            recent = sorted({int(line.split()[1]) for line in lines[-8:]})
            living = [pid for pid in recent if psutil.pid_exists(pid)]
            if living:
                os.kill(draw.choice(living), signal.SIGKILL)
                killed_workers += 1
            next_kill = time.perf_counter() - begun + every
    seconds = time.perf_counter() - begun
    if driver.returncode:
        raise RuntimeError(f"the driver ended with {driver.returncode}")
    found = read_json(f"{log}.json")
    calls = Counter(line.split()[0] for line in log.read_text().split("\n")[:-1])
    return {
        "tasks": tasks,
        "mean_task_s": mean,
        "kill_every_s": every,
        "killed_workers": killed_workers,
        "killed_drivers": killed_drivers,
        "results": found["results"],
        "wrong_results": found["wrong"],
        "done_records": found["done_records"],
        "calls": sum(calls.values()),
        "tasks_called_more_than_once": sum(count > 1 for count in calls.values()),
        "wall_s": seconds,
        "costs": found["costs"],
        "task_seconds": found["task_seconds"],
    }
