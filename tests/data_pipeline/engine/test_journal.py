"""The journal: one worker per task, death frees it, and done means that the outputs are still there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data_pipeline.engine.journal import Journal, Task, fingerprint, run_task
from data_pipeline.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
TASK = Task(id="build", fingerprint="f1")

# Waits for the starting signal, tries to claim, tells what came of it, and holds the claim until every worker has tried.
RACER = """
import sys, time
from pathlib import Path
from data_pipeline.engine.journal import Journal, Task
from data_pipeline.errors import InputError
root, name, racers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
journal = Journal(root / "run")
(root / f"ready-{name}").touch()
while not (root / "go").exists():
    pass
try:
    with journal.claim(Task(id="build", fingerprint="f1")):
        (root / f"tried-{name}").write_text("won")
        while len(list(root.glob("tried-*"))) < racers:
            time.sleep(0.01)
except InputError:
    (root / f"tried-{name}").write_text("lost")
"""

# Does half of the work and dies, or all of it.
WORKER = """
import os, signal, sys
from pathlib import Path
from data_pipeline.engine.journal import Journal, Task, run_task
root, die = Path(sys.argv[1]), sys.argv[2] == "die"
def work():
    with open(root / "calls", "a") as stream:
        stream.write("x")
    (root / "out.bin").write_bytes(b"half")
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    (root / "out.bin").write_bytes(b"whole")
    return {"rows": 5}
run_task(Journal(root), Task(id="build", fingerprint="f1"), ["out.bin"], work)
"""


def claim_file(root: Path, attempt: int = 1, **changes: object) -> Path:
    path = root / f"journal/claims/build.{attempt}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "expires": time.time() + 60,
    }
    path.write_text(json.dumps({**mine, **changes}), encoding="utf-8")
    return path


def claimed(root: Path) -> int:
    with Journal(root).claim(TASK) as attempt:
        return attempt


def test_one_of_many_processes_wins(tmp_path: Path) -> None:
    racers = 6
    claim_file(tmp_path / "run", host=socket.gethostname(), pid=2**22 + 1)  # a dead one's claim, so that all race for the second attempt
    code = [sys.executable, "-c", RACER, str(tmp_path)]
    workers = [subprocess.Popen([*code, str(number), str(racers)], cwd=ROOT) for number in range(racers)]
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("ready-*"))) < racers:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (tmp_path / "go").touch()
        assert [worker.wait(60) for worker in workers] == [0] * racers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert sorted(path.read_text(encoding="utf-8") for path in tmp_path.glob("tried-*")) == ["lost"] * (racers - 1) + ["won"]
    assert list((tmp_path / "run/journal/claims").iterdir()) == []


def test_an_attempt_taken_in_between_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker claims after we have looked and before we create: we must look again, not take the next number."""
    journal = Journal(tmp_path)
    create = Journal._create

    def other_first(self: Journal, path: str) -> bool:
        monkeypatch.setattr(Journal, "_create", create)
        claim_file(tmp_path, 1)
        return create(self, path)

    monkeypatch.setattr(Journal, "_create", other_first)
    with pytest.raises(InputError, match="is being done by process"), journal.claim(TASK):
        pass


def test_a_living_process_is_refused_and_a_dead_one_is_free(tmp_path: Path) -> None:
    claim_file(tmp_path, 3)
    with pytest.raises(InputError, match=f"build is being done by process {os.getpid()}"):
        claimed(tmp_path)
    claim_file(tmp_path, 3, started=psutil.Process().create_time() - 500)  # the number was given to another process since
    assert claimed(tmp_path) == 4
    assert list((tmp_path / "journal/claims").iterdir()) == []


def test_a_claim_cut_off_by_death_is_free(tmp_path: Path) -> None:
    claim_file(tmp_path).write_text('{"host": ', encoding="utf-8")
    assert claimed(tmp_path) == 2


def test_another_hosts_claim_lives_as_long_as_its_lease(tmp_path: Path) -> None:
    claim_file(tmp_path, host="elsewhere", expires=time.time() + 60)
    with pytest.raises(InputError, match="on elsewhere"):
        claimed(tmp_path)
    claim_file(tmp_path, host="elsewhere", expires=time.time() - 1)
    assert claimed(tmp_path) == 2


def test_the_lease_is_renewed_while_the_work_runs(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lease_seconds=0.15)
    path = tmp_path / "journal/claims/build.1.json"
    with journal.claim(TASK):
        first = json.loads(path.read_text(encoding="utf-8"))["expires"]
        deadline = time.monotonic() + 30
        while json.loads(path.read_text(encoding="utf-8"))["expires"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not path.exists()


def test_done_is_kept_and_a_changed_output_is_not(tmp_path: Path) -> None:
    journal, calls = Journal(tmp_path), []

    def work() -> dict[str, int]:
        calls.append(1)
        (tmp_path / "out/deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out/deep/a.bin").write_bytes(b"12345")
        return {"rows": len(calls)}

    def do(task: Task = TASK) -> int:
        return run_task(journal, task, ["out"], work).record["rows"]

    assert (do(), do()) == (1, 1)
    (tmp_path / "out/deep/a.bin").write_bytes(b"12346")  # same size
    assert journal.done(TASK) is None
    assert (do(), do()) == (2, 2)
    (tmp_path / "out/deep/a.bin").unlink()
    assert do() == 3
    assert do(Task(id="build", fingerprint="f2")) == 4  # planned anew under another fingerprint
    (tmp_path / "journal/done/build.json").write_text("{", encoding="utf-8")
    assert do() == 5


def test_a_task_that_raises_is_not_done_and_gives_its_claim_back(tmp_path: Path) -> None:
    def work() -> dict[str, int]:
        raise ZeroDivisionError

    journal = Journal(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run_task(journal, TASK, [], work)
    assert journal.done(TASK) is None
    assert list((tmp_path / "journal/claims").iterdir()) == []


def test_kill_9_in_the_middle_then_done_once(tmp_path: Path) -> None:
    code = [sys.executable, "-c", WORKER, str(tmp_path)]
    assert subprocess.run([*code, "die"], cwd=ROOT, check=False, timeout=120).returncode == -signal.SIGKILL
    assert Journal(tmp_path).done(TASK) is None
    assert len(list((tmp_path / "journal/claims").iterdir())) == 1  # the dead one's
    for _ in range(2):
        subprocess.run([*code, "live"], cwd=ROOT, check=True, timeout=120)
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "xx"  # once by the dead, once to the end, then kept
    assert (tmp_path / "out.bin").read_bytes() == b"whole"
    done = Journal(tmp_path).done(TASK)
    assert done is not None
    assert done.record == {"rows": 5}


def test_done_by_another_while_we_waited_for_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    take = Journal._take

    def other_finishes_first(self: Journal, task: Task) -> int:
        self.finish(task, [], {"by": "other"}, 0.0, 0.0)
        return take(self, task)

    monkeypatch.setattr(Journal, "_take", other_finishes_first)
    assert run_task(journal, TASK, [], lambda: {"by": "me"}).record == {"by": "other"}


def test_plan_and_fingerprints(tmp_path: Path) -> None:
    Journal(tmp_path).plan([TASK])
    plan = json.loads((tmp_path / "journal/plan.json").read_text(encoding="utf-8"))
    assert plan == {"format": 1, "tasks": [{"id": "build", "fingerprint": "f1"}]}
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
