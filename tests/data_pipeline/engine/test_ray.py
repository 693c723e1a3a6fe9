"""The engine on Ray: one cluster for the file; one of its processes is killed under a task. Nothing of Ray's stays behind."""

import os
import sys
import threading
from pathlib import Path

import psutil
import pytest

from data_pipeline.engine import Budget, Engine, Limits
from data_pipeline.errors import InputError
from tests.data_pipeline.engine import sample_tasks as tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_without_the_package_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'phial\[ray\]'"):
        Engine(tmp_path, workers="ray")


def test_tasks_on_ray_survive_a_killed_worker_and_ray_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    threads, folders = set(threading.enumerate()), set(Path("/tmp").glob("phial-ray-*"))
    with Engine(tmp_path / "journal", workers="ray", ray={"num_cpus": 2}) as engine:
        parameters = [(str(tmp_path), number, 0.4) for number in range(6)]
        coming = engine.map(tasks.slow_line, parameters, limits=Limits(backoff_seconds=0.01))
        first = next(coming)
        done_by = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
        loop = next(process for number in done_by if psutil.pid_exists(number) and (process := psutil.Process(number).parent()))
        loop.kill()  # Ray's own worker process: the loop, and with it the process that does the task
        futures = [first, *coming]
        assert sorted(future.result() for future in futures) == [0, 1, 4, 9, 16, 25]
        costs = engine.costs()
        assert (costs.tasks, costs.dead) == (6, 0)
        assert costs.lost <= 1
        (failed,) = engine.map(tasks.fail, ["OSError"], limits=Limits(retries=2, backoff_seconds=0.01))
        with pytest.raises(ConnectionResetError):
            failed.result()
        assert failed.attempts == 2  # Ray itself tries nothing again that a function raised
        engine.budget = Budget(core_hours=(engine.costs().core_seconds + 0.2) / 3600)
        with pytest.raises(InputError, match="the budget is spent"):
            list(engine.map(tasks.pause, [0.3, 3.0]))
    with Engine(tmp_path / "journal", workers=0) as engine:  # what was under way was kept
        assert sorted(future.result() for future in engine.map(tasks.pause, [0.3, 3.0])) == [0.3, 3.0]
    assert set(Path("/tmp").glob("phial-ray-*")) == folders
    assert {thread for thread in threading.enumerate() if not thread.daemon} <= threads
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    assert not [process for process in psutil.process_iter(["pid", "name"]) if process.info["name"] == "raylet" and process.pid in ours]
