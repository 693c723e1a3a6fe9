"""Batch scripts, run by a shell with stand-ins for Slurm's own commands, and the lines of a dry run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from data_pipeline.storage import read_json
from phial import run
from training.cluster.rehearsal import RECIPE, write_corpus
from training.cluster.slurm import batch_script
from training.cluster.verify import main as verify

SLURM = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = show ] && echo 127.0.0.1; exit 0',
    # srun starts the command on one machine; torchrun is not what is tested here.
    "srun": 'echo "srun $*" >> "$CALLS"; shift; case "$*" in *distributed.run*) PHIAL_PYTHON="$ECHO" "$@";; *) "$@";; esac',
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe, tokens and a run folder, all named by relative paths."""
    write_corpus(tmp_path / "run")
    tables = {"run": {"folder": "run", "seed": 5}, "model": {"preset": "tiny"}, "pretrain": RECIPE.model_dump(mode="json")}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(tables))
    monkeypatch.chdir(tmp_path)
    return "mine.toml"


def run_script(text: str, folder: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The script as Slurm would run it from the root folder, and the calls of Slurm's commands and of torchrun."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    echo = 'echo "torchrun OMP=$OMP_NUM_THREADS GLOO=${GLOO_SOCKET_IFNAME:-} $*" >> "$CALLS"; exit ${ENDS:-0}'
    for name, lines in {**SLURM, "echo-torchrun": echo}.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}\n")
        (programs / name).chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    given = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME")}
    given |= {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "ECHO": str(programs / "echo-torchrun")}
    given |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a,b", "SLURM_NODEID": "0", **environment}
    done = subprocess.run(["bash"], input=text, text=True, env=given, cwd="/", capture_output=True, check=False)
    return done, calls.read_text()


def test_a_batch_script_is_a_script(tmp_path: Path) -> None:
    text = batch_script("tiny", ["pretrain.seed=1 2"], tmp_path / "a b", 4, 8, 600, interface="ib 0", verify=True, edit_mixture=True)
    assert "--nodes=4" in text
    assert "--nproc-per-node=8" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_what_was_given_arrives(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Relative paths hold though the job starts elsewhere; interface, verification, threads and an edited mixture are in force."""
    options = ["--slurm", "--interface", "lo", "--verify", "--edit-mixture", "--set", "pretrain.checkpoints=mine", "--out", "run"]
    assert run(["launch", recipe, *options, "--nodes", "2", "--gpus-per-node", "2", "--set", "pretrain.threads=4"]) == 0
    done, calls = run_script(capsys.readouterr().out, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-m training.cluster.verify" in calls
    assert "torchrun OMP=2 GLOO=lo -m torch.distributed.run --nnodes=2" in calls
    job = read_json(tmp_path / "run" / "pretrain" / "launch" / "job.json")
    assert job["edit_mixture"] is True
    assert job["tokens"] == str(tmp_path / "run" / "tokens")


def test_cores_are_shared_out_where_the_recipe_names_no_threads(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", recipe, "--slurm", "--gpus-per-node", "2", "--set", "pretrain.threads=0"]) == 0
    text = capsys.readouterr().out
    cores = len(os.sched_getaffinity(0))
    assert f"OMP={max(1, cores // 2)} " in run_script(text, tmp_path)[1]
    assert "OMP=3 " in run_script(text, tmp_path, OMP_NUM_THREADS="3")[1]


def test_a_damaged_shard_ends_the_job_before_torchrun(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", recipe, "--slurm", "--verify", "--gpus-per-node", "2"]) == 0
    shard = next((tmp_path / "run" / "tokens" / "web").glob("tokens-*.bin"))
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    text = capsys.readouterr().out
    done, calls = run_script(text, tmp_path)
    assert done.returncode == 2
    assert f"{shard}: SHA-256" in done.stderr
    assert "GB of shards compared" in done.stderr
    assert "torchrun" not in calls
    assert "torchrun" in run_script(text, tmp_path, SLURM_RESTART_COUNT="1")[1], "a requeued job does not hash again"
    assert verify(str(tmp_path / "run" / "pretrain" / "launch" / "job.json")) == 2


def test_restarts_are_requeues(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", recipe, "--slurm", "--restarts", "3", "--gpus-per-node", "2"]) == 0
    text = capsys.readouterr().out
    assert "scontrol requeue 7" in run_script(text, tmp_path, ENDS="1", SLURM_RESTART_COUNT="2")[1]
    done, calls = run_script(text, tmp_path, ENDS="1", SLURM_RESTART_COUNT="3")
    assert done.returncode == 1
    assert "requeued 3 times; given up" in done.stdout
    assert "scontrol requeue" not in calls


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--slurm", "--dry-run"], "--dry-run means nothing with --slurm"),
        (["--slurm", "--json"], "--json means nothing with --slurm"),
        (["--hosts", "hosts", "--nodes", "2"], "--nodes means nothing with --hosts"),
    ],
)
def test_what_does_not_apply_is_refused(options: list[str], name: str, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", recipe, *options]) == 2
    assert name in capsys.readouterr().err


def test_a_dry_run_can_be_pasted(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a shell makes of the line, and what the far side's shell makes of that, is torchrun with a job file that is there."""
    (tmp_path / "hosts").write_text("far slots=2\n")
    assert run(["launch", recipe, "--hosts", "hosts", "--dry-run", "--out", "run", "--set", "pretrain.checkpoints=mine"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[0] == "ssh"
    assert words[-2] == "far"
    far = shlex.split(words[-1])
    assert far[:2] == ["cd", str(Path(__file__).resolve().parents[3])]
    assert sys.executable in far
    assert "PHIAL_LEASE_SECONDS=inf" in far
    assert any(word.startswith("OMP_NUM_THREADS=") for word in far)
    assert read_json(far[-1])["recipe"]["checkpoints"] == str(tmp_path / "mine")
