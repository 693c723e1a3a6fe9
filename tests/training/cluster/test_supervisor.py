"""When a run is started again, when it is given up, and what is told of how it ended."""

import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from data_pipeline.errors import InputError
from modeling.checkpoint import finish_checkpoint
from modeling.checkpoint_parts import PartWriter
from phial import run
from training.cluster import preflight, rehearsal
from training.cluster import supervisor as supervising
from training.cluster.agent import LOOK_SECONDS
from training.cluster.nodes import NamespaceNode, Node, SshNode, python
from training.cluster.preflight import compare, look
from training.cluster.rehearsal import SCENARIOS, Result, Stage, rehearse, two_nodes
from training.cluster.supervisor import Settings, Stopped, Supervisor, describe_end, end_all
from training.cluster.verify import COMPARED
from training.job import make_plan
from training.run_lock import run_lock

HERE = [Node("here-a", "127.0.0.1", 1, "lo"), Node("here-b", "127.0.0.1", 1, "lo")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"), list(HERE), None)


def supervisor(stage: Stage, name: str, **settings) -> Supervisor:
    job = stage.job(name)
    job.out.mkdir(parents=True, exist_ok=True)
    return Supervisor(job, make_plan(job, 2), HERE, Settings(**settings), None)


def test_a_run_that_gets_nowhere_is_given_up(stage: Stage) -> None:
    boss = supervisor(stage, "nowhere", restarts=5, fruitless=3)
    boss.check_budget("rank 1 died", 4, 2)
    with pytest.raises(Stopped, match="3 attempts in a row completed no checkpoint, the last because rank 1 died; given up"):
        boss.check_budget("rank 1 died", 1, 3)
    with pytest.raises(Stopped, match=r"rank 1 died; all 5 restarts are used up \(--restarts\)"):
        boss.check_budget("rank 1 died", 5, 0)


def test_a_second_supervisor_is_refused(stage: Stage) -> None:
    boss = supervisor(stage, "locked")
    with run_lock(boss.job.out), pytest.raises(InputError, match=r"is being trained into already \(pid \d+ on "):
        boss.run()


def test_what_torchrun_says_of_the_first_rank_that_failed() -> None:
    text = "Root Cause (first observed failure):\n[0]:\n  time      : now\n  rank      : 3 (local_rank: 1)\n  exitcode  : -9 (pid: 7)\n"
    assert describe_end(text, 1) == "rank 3 was killed by signal 9"
    assert describe_end(text.replace("-9", "1"), 1) == "rank 3 ended with exit code 1"
    assert describe_end("ssh: connect to host b: No route to host\n", 255).endswith("255: ssh: connect to host b: No route to host")


def test_nodes_wrap_commands() -> None:
    assert NamespaceNode("ns", "10.0.0.1", 1).wrap(["a"], {"X": "1"}) == ["nsenter", "--net=/run/netns/ns", "env", "X=1", "a"]
    line = SshNode("far", "far", 8).wrap(["a", "b c"], {"X": "1 2"})
    assert line[0] == "ssh"
    assert line[-2] == "far"
    assert line[-1].endswith("exec env 'X=1 2' a 'b c'")


def agent_with_rank(folder: Path) -> "tuple[subprocess.Popen[bytes], list[psutil.Process]]":
    """An agent, and below it a launcher and what that has started in a group of its own."""
    child = "[sys.executable, '-c', 'import time; time.sleep(99)']"
    code = f"import subprocess, sys, time; subprocess.Popen({child}, start_new_session=True); time.sleep(99)"
    with open(folder / "log", "wb") as log:
        process = HERE[0].start(python("training.cluster.agent", sys.executable, "-c", code), {}, log)
    limit = time.monotonic() + 30
    while len(below := psutil.Process(process.pid).children(recursive=True)) < 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    return process, below


def test_no_process_outlives_the_one_who_listens(tmp_path: Path) -> None:
    """Closing the pipe ends what the agent runs, processes of other groups and stopped ones too."""
    process, below = agent_with_rank(tmp_path)
    below[-1].suspend()
    end_all([process])
    assert process.returncode is not None
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive


def test_ranks_of_a_killed_torchrun_are_ended(tmp_path: Path) -> None:
    """A launcher that is killed cannot end what it has started, and what it has started is no longer below it."""
    process, below = agent_with_rank(tmp_path)
    time.sleep(2 * LOOK_SECONDS)
    launcher, rank = below
    rank.suspend()
    launcher.kill()
    _, alive = psutil.wait_procs([rank], timeout=10)
    end_all([process])
    assert not alive


def test_a_rank_ends_with_its_torchrun(tmp_path: Path) -> None:
    rank = "import time; from training.worker import end_with_torchrun; end_with_torchrun(); print('up', flush=True); time.sleep(99)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    below = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive


def test_preflight_names_what_is_wrong(stage: Stage, tmp_path: Path) -> None:
    boss = supervisor(stage, "looked-at", verify=True)
    request = boss.preflight_request() | {"addresses": ["127.0.0.1"]}
    (boss.job.out / request["token"]).touch()
    assert look(request, 0)["faults"] == []
    far = {str(tmp_path / "not yet/there"): 10**18, str(tmp_path): 10**18}
    wrong = request | {"token": "elsewhere", "needed_bytes": far, "sources": ["web", "none"]}
    shared, disk, shards = look(wrong, 0)["faults"]
    assert "the run's folder must be on shared storage" in shared
    assert "no such file; token shards are written by" in shards
    assert f"{tmp_path}/not yet/there and {tmp_path}: " in disk, "two folders of one disk are asked together"
    assert "what is still to be written takes 2000000000.0 GB" in disk
    packages = {"torch": "2.13", "deepspeed": "1", "transformers": "5", "numpy": "2"}
    good = {"host": "a", "python": "3.11.7", "time": 100.0, "packages": packages}
    bad = {**good, "host": "b", "time": 4000.0, "packages": packages | {"torch": "2.11"}}
    assert compare([good, good], 99.0, 101.0) == []
    version, clock = compare([good, bad], 99.0, 101.0)
    assert version == "b: torch 2.11, and 2.13 on a"
    assert clock == "b: its clock is +3900 s off; set it by NTP"
    assert compare([good, good | {"host": "c", "time": 400.0}], 99.0, 900.0) == ["c: its clock is +271 s off; set it by NTP"], (
        "fourteen minutes of hashing forgive no clock"
    )


def test_room_is_asked_for_what_is_still_to_be_written(stage: Stage, tmp_path: Path) -> None:
    """Checkpoints that stand already need no more room; they may lie elsewhere than the run."""
    boss = supervisor(stage, "room")
    boss.checkpoints = str(tmp_path)
    out, place = str(boss.job.out.resolve()), str(tmp_path)
    first = boss.preflight_request()["needed_bytes"]
    assert first[place] == first[out] // 4 * 12 * (boss.job.recipe.keep_last + 1)
    for step in range(boss.job.recipe.keep_last):
        with PartWriter(tmp_path / f"step-{step:08d}", 0) as writer:
            writer.add("weight/x", torch.ones(2))
        finish_checkpoint(str(tmp_path / f"step-{step:08d}"), 1, {})
    assert boss.preflight_request()["needed_bytes"] == {out: first[out], place: first[out] // 4 * 12}
    boss.checkpoints = "memory://elsewhere/checkpoints"
    assert boss.preflight_request()["needed_bytes"] == {out: first[out]}


def test_machines_that_compare_hashes_are_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that says how far it is may take as long as it needs, one that is silent is given up."""
    monkeypatch.setattr(supervising, "PREFLIGHT_SECONDS", 1.5)
    boss = supervisor(stage, "patient")
    boss.stream = io.StringIO()
    talks = f"import time\nfor n in range(5): print(n, {COMPARED!r}, flush=True); time.sleep(0.7)"
    logs = [tmp_path / "talks", tmp_path / "silent"]
    running = []
    for log, code in zip(logs, (talks, "import time; time.sleep(99)"), strict=True):
        with open(log, "wb") as output:
            running.append(HERE[0].start([sys.executable, "-c", code], {}, output))
    boss.wait_for_preflight(running, logs)
    assert [process.wait() for process in running] == [0, -9]
    end_all(running)
    assert f"here-a: 4 {COMPARED}" in boss.stream.getvalue()


def test_a_name_that_only_ssh_knows_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments, **named):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(preflight.socket, "create_connection", unknown)
    _, fault = preflight.measure_bandwidth(["127.0.0.1", "alias"], 43_410, 0)
    assert fault == "alias: no such name here; machines reach each other by the names of the hosts file, not by ssh's aliases"


def test_the_verb_refuses_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["launch", "tiny"]) == 2
    assert "one of --hosts FILE, --slurm and --rehearse NAME is needed" in capsys.readouterr().err
    assert run(["launch", "tiny", "--rehearse", "flood"]) == 2
    assert "no such scenario; there is kill-a-rank" in capsys.readouterr().err
    assert run(["launch", "tiny", "--hosts", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_rehearsal(name: str, shared_stage: Stage) -> None:
    """Two nodes, in namespaces where that is allowed: every fault ends as it must."""
    result = SCENARIOS[name](shared_stage)
    if result.passed is None:
        pytest.skip(result.told)
    assert result.passed, result


def test_what_was_not_rehearsed_is_not_called_passed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def found(folder: Path, names: list[str], stream, show) -> list[Result]:
        return [Result("one", True, "", 0.0), Result("other", None, "no namespaces", 0.0), Result("third", bad, "", 0.0)]

    monkeypatch.setattr(rehearsal, "rehearse", found)
    bad = True
    assert run(["launch", "tiny", "--rehearse", "all"]) == 0
    assert "2 of 2 scenarios ended as they must, 1 skipped" in capsys.readouterr().out
    bad = False
    assert run(["launch", "tiny", "--rehearse", "all"]) == 1
    assert run(["launch", "tiny", "--rehearse", "all", "--set", "pretrain.seed=1"]) == 2
    assert "--set means nothing with --rehearse" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory):
    with two_nodes() as nodes:
        yield Stage(tmp_path_factory.mktemp("rehearsal"), nodes, None)


def test_a_rehearsal_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--rehearse flood: no such scenario"):
        rehearse(tmp_path, ["flood"], None)
