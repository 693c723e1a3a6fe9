"""Workers and drivers that are killed with signal 9: every task has one result, and nothing that was done is done again."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_pipeline.engine import Engine, Limits
from data_pipeline.engine.book import Book
from data_pipeline.engine.leases import Leases
from data_pipeline.engine.store import Store
from data_pipeline.storage import read_json, write_json
from tests.data_pipeline.engine import sample_tasks as tasks

ROOT = Path(__file__).resolve().parents[3]
DRIVER = """
import sys
from data_pipeline.engine import Engine
from tests.data_pipeline.engine import sample_tasks as tasks
folder = sys.argv[1]
if __name__ == "__main__":
    with Engine(f"{folder}/journal", workers=2) as engine:
        list(engine.map(tasks.slow_line, [(folder, number, 0.15) for number in range(12)]))
"""


def worker_processes(folder: Path) -> list[psutil.Process]:
    """The living processes that have done a task of this test."""
    found = []
    for path in folder.glob("pid-*"):
        with_number = int(path.name.removeprefix("pid-"))
        if psutil.pid_exists(with_number):
            found.append(psutil.Process(with_number))
    return found


def wait_for(condition: object, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_every_task_has_one_result_though_workers_are_killed(tmp_path: Path) -> None:
    kills = 0

    def kill() -> None:
        nonlocal kills
        while kills < 4 and not over.wait(0.3):
            for process in worker_processes(tmp_path)[:1]:
                process.kill()
                (tmp_path / f"pid-{process.pid}").unlink()
                kills += 1

    over = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    with Engine(tmp_path / "journal", workers=2) as engine:
        limits = Limits(backoff_seconds=0.01)
        futures = list(engine.map(tasks.slow_line, [(str(tmp_path), number, 0.2) for number in range(14)], limits=limits))
        over.set()
        killer.join()
        assert sorted(future.result() for future in futures) == sorted(number * number for number in range(14))
        costs = engine.costs()
    assert kills == 4
    assert (costs.tasks, costs.dead) == (14, 0)
    assert 1 <= costs.lost <= 4  # a process that was killed between two tasks cost none
    calls = Counter((tmp_path / "calls").read_text().split())
    assert len(calls) == 14
    assert sum(calls.values()) <= 14 + costs.lost  # less where a process died before or after the call
    assert len(list((tmp_path / "journal/done").iterdir())) == 14


def test_a_killed_driver_goes_on_and_leaves_nobody_behind(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=ROOT)
    done = tmp_path / "journal/done"
    wait_for(lambda: done.is_dir() and len([path for path in done.iterdir() if path.suffix == ".json"]) >= 3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not worker_processes(tmp_path), 10)
    kept = {read_json(path)["task"] for path in done.iterdir() if path.suffix == ".json"}
    before = Counter((tmp_path / "calls").read_text().split())
    begun = time.monotonic()
    with Engine(tmp_path / "journal", workers=2) as engine:
        parameters = [(str(tmp_path), number, 0.15) for number in range(12)]
        futures = {future.parameters[1]: future for future in engine.map(tasks.slow_line, parameters)}
        costs = engine.costs()
    assert time.monotonic() - begun < 30  # half a lease: claims of the dead driver were free at once
    assert [futures[number].result() for number in range(12)] == [number * number for number in range(12)]
    calls = Counter((tmp_path / "calls").read_text().split())
    again = {number for number, count in calls.items() if count > 1}
    assert again <= {number for number in before if futures[int(number)].task_id not in kept}
    assert costs.lost == len([f for f in futures.values() if f.attempts > 1]) <= 2


def test_one_of_two_workers_wins_a_claim_and_one_result_stands(tmp_path: Path) -> None:
    racers, rounds = 4, 25
    barrier = threading.Barrier(racers)
    won: list[tuple[str, str]] = []

    def race() -> None:
        leases, book = Leases(Store(tmp_path)), Book(Store(tmp_path))
        for number in range(rounds):
            barrier.wait()
            if leases.take(f"task{number}", 1) is not None:
                won.append(("claim", str(number)))
            if book.commit(f"task{number}", {"task": f"task{number}", "worker": threading.get_ident()}):
                won.append(("result", str(number)))
        leases.close()

    threads = [threading.Thread(target=race) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(won) == Counter({(what, str(number)): 1 for what in ("claim", "result") for number in range(rounds)})


def test_a_result_made_anew_is_not_taken_back_by_a_late_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, late = Book(Store(tmp_path)), Book(Store(tmp_path))
    first.commit("task", {"task": "task", "try": 1, "seconds": 1.0, "worker": "a"})
    ends = late.fail

    def meanwhile(*given: Any, **facts: Any) -> bool:
        first.undo("task")
        first.commit("task", {"task": "task", "try": 2, "seconds": 1.0, "worker": "b"})
        return ends(*given, **facts)

    monkeypatch.setattr(late, "fail", meanwhile)
    late.undo("task")
    assert (late.done("task") or {}).get("try") == 2


def test_a_claim_is_free_when_its_holder_is_gone_and_not_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    leases = Leases(store, lease_seconds=0.2)
    claim = leases.take("task", 1)
    assert claim is not None
    path = tmp_path / claim.name
    mine = read_json(path)
    assert leases.holder_gone("task", 1) is None
    wait_for(lambda: read_json(path)["renewed"] >= 1)  # by its thread
    assert Leases(store).holder_gone("task", 1) is None
    leases.drop(claim)
    leases.close()
    assert Leases(store).holder_gone("task", 1) is not None  # this process gave it up, though it could not write so
    write_json(path, {**mine, "pid": 2**22 + 1})
    assert leases.holder_gone("task", 1) is not None  # a process of this machine that is not there
    write_json(path, {**mine, "started": mine["started"] - 100})
    assert leases.holder_gone("task", 1) is not None  # its number belongs to another by now
    elsewhere = {**mine, "machine": "another", "lease": 0.2, "expires": time.time() + 100}
    write_json(path, elsewhere)
    assert leases.holder_gone("task", 1) is None
    time.sleep(0.25)
    write_json(path, {**elsewhere, "renewed": 9})
    assert leases.holder_gone("task", 1) is None  # it was renewed since the last look
    time.sleep(0.25)
    assert leases.holder_gone("task", 1) is not None  # unchanged for a lease on this clock
    write_json(path, {**elsewhere, "renewed": 10, "lease": 60, "expires": time.time() - 5})
    assert leases.holder_gone("task", 1) is None  # clocks may differ by a lease
    write_json(path, {**elsewhere, "renewed": 11, "lease": 60, "expires": time.time() - 65})
    assert leases.holder_gone("task", 1) is not None


def start_worker(journal: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "phial", "worker", "--journal", str(journal), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_of_the_command_gives_back_stands_and_does_again_what_is_revived(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Engine(journal, workers=0) as engine:
        waiting = engine.map(tasks.slow_line, [(str(tmp_path), 3, 600.0)])
        first = start_worker(journal)
        wait_for((tmp_path / "calls").exists)
        first.send_signal(signal.SIGTERM)
        told, _ = first.communicate(timeout=30)
        assert (first.returncode, told) == (143, "0 tasks done; ended: told to stop\n")
        (ended,) = engine.book.view().tries.items()
        assert engine.book.tried(ended[0], 1)["kind"] == "returned"  # type: ignore[index]
        waiting.close()  # type: ignore[attr-defined]
        for path in (*journal.glob("plans/*"), *journal.glob("claims/*"), *journal.glob("tries/*")):
            path.unlink()
        standing = start_worker(journal, "--idle-seconds", "6")
        calls = (str(tmp_path / "times"), 2)
        (dead,) = engine.map(tasks.fail_until, [calls], limits=Limits(retries=1))
        assert dead.dead
        engine.revive()
        (alive,) = engine.map(tasks.fail_until, [calls], limits=Limits(retries=1))
        assert alive.result() == 2
        assert [future.result() for future in engine.map(tasks.square, [5, 6])] in ([25, 36], [36, 25])
        told, wrong = standing.communicate(timeout=60)
    assert (standing.returncode, told, wrong) == (0, "3 tasks done; ended: idle\n", "")


def raise_error(error: Exception) -> Callable[..., list[str]]:
    def names(*_: object) -> list[str]:
        raise error

    return names


def test_a_worker_without_a_plan_or_with_other_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import phial

    assert phial.run(["worker", "--journal", str(tmp_path / "empty")]) == 2
    assert "no plan; start the program that makes it first" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert phial.run(["worker", "--journal", str(tmp_path / "file")]) == 2
    assert "the journal cannot be read or written: NotADirectoryError" in capsys.readouterr().err
    assert phial.run(["worker", "--journal", str(tmp_path / "empty"), "--lease-seconds", "inf"]) == 2
    assert "--lease-seconds" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(
            Store, "names", raise_error(type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})("none"))
        )
        assert phial.run(["worker", "--journal", str(tmp_path / "empty")]) == 2
    assert "the journal cannot be read or written: NoCredentialsError: none\n" in capsys.readouterr().err
    with Engine(tmp_path / "journal", workers=0) as engine:
        engine.map(tasks.square, [1])
    (plan,) = (tmp_path / "journal/plans").iterdir()
    facts = read_json(plan)
    write_json(plan, {**facts, "source": "0" * 64})
    assert phial.run(["worker", "--journal", str(tmp_path / "journal")]) == 2
    assert "its module differs here from the one that was planned" in capsys.readouterr().err
    assert not (tmp_path / "journal/done").exists()
