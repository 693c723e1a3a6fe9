"""Several ranks on this machine: started together, watched together, ended together."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from training.hardware import threads_of
from training.job import Job

LAST_LINES = 3
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
REWOUND = 75  # how a rank ends that has gone back to a checkpoint (`training.trainer.Rewound`)


class RankFailure(RuntimeError):
    """A rank died; the line names it, how it ended and the last it said. The run goes on from its last checkpoint when started again."""

    exit_code = 2


def launch(job: Job, ranks: int, stream: TextIO | None) -> dict[str, Any]:
    """Runs the job on `ranks` processes and returns its result. The first rank's progress goes to `stream`, which must be a real
    file or terminal.

    Logs are in `out/logs/`. When a rank dies the others are ended, and the error is the dead rank's own one line where it had one.
    """
    logs = job.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (job.out / "result.json").unlink(missing_ok=True)
    while not run_once(job, ranks, stream, logs):
        pass  # the ranks have gone back to a checkpoint and begin again
    return read_json(job.out / "result.json")


def run_once(job: Job, ranks: int, stream: TextIO | None, logs: Path) -> bool:
    """Starts the ranks and waits for them; whether they are done, and not to be started again."""
    with tempfile.TemporaryDirectory(prefix="phial-ranks-") as folder:
        meeting = Path(folder)
        (meeting / "job.json").write_text(json.dumps(job.to_json()), encoding="utf-8")
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                processes.append(start(job, rank, ranks, meeting, logs / f"rank-{rank}.log", stream))
            return watch(processes, meeting, logs)
        finally:
            end(processes)


def start(job: Job, rank: int, ranks: int, meeting: Path, log: Path, stream: TextIO | None) -> "subprocess.Popen[bytes]":
    """One rank. Its standard input is a pipe that closes when this process is gone, however it went: that ends the rank too."""
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "PHIAL_MEETING": str(meeting / "rendezvous"),
        "OMP_NUM_THREADS": str(threads_of(job.recipe, ranks)),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")  # the host's name may not resolve
    shown = stream if rank == 0 and stream is not None else subprocess.DEVNULL
    with open(log, "wb") as errors:
        command = [sys.executable, "-m", "training.worker", str(meeting / "job.json")]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=shown, stderr=errors)


def watch(processes: "list[subprocess.Popen[bytes]]", meeting: Path, logs: Path) -> bool:
    """Returns when every rank has ended well (true) or wants to be started again (false), and raises at the first that has failed."""
    while True:
        codes = [process.poll() for process in processes]
        if all(code == REWOUND for code in codes):
            return False
        dead = [rank for rank, code in enumerate(codes) if code and code != REWOUND]
        if dead:
            time.sleep(POLL_SECONDS)  # a rank that fails takes others along at once; the one with a line of its own is the cause
            told = meeting / "error.json"
            if told.exists():
                raise InputError(read_json(told)["line"])
            rank = min(dead, key=lambda one: (codes[one] or 0) > 0)  # killed ones first: they are the cause, not the consequence
            raise RankFailure(describe_death(rank, codes[rank] or 0, logs / f"rank-{rank}.log"))
        if all(code == 0 for code in codes):
            return True
        time.sleep(POLL_SECONDS)


def describe_death(rank: int, code: int, log: Path) -> str:
    """One line: which rank, how it ended, and the last it said."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = " | ".join(line.strip() for line in lines[-LAST_LINES:]) or "nothing"
    return f"pretrain: rank {rank} {how}; all ranks were ended. Its last lines in {log}: {last}"


def end(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Ends what still runs: asked first, then killed."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    limit = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
