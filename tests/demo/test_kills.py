"""Killed (SIGKILL) at seeded moments and run again, the chain keeps finished stages and ends with the bits of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data_pipeline.storage import read_json, sha256_of
from tests import tiny_chain

DRIVER = tiny_chain.ROOT / "tests/demo/killed_chain.py"
# The stages that are struck, and from which moment to which; killed_chain.py counts them.
RANGES = {"filter": (0, 10), "pretrain": (30, 85), "sft": (0, 18), "dpo": (0, 16), "export": (0, 9)}
COMPARED = ("tokenizer/tokenizer.json", "pretrain/model/model.safetensors", "sft/model/model.safetensors", "dpo/model/model.safetensors")
COMPARED += ("package/model.onnx", "package/model.onnx.data", "package/tokenizer.json")


def digests(run: Path) -> dict[str, str]:
    return {name: sha256_of(run / name) for name in COMPARED}


def drive(recipe: Path, out: Path, kills: list[tuple[str, int]], *more: str) -> list[int]:
    """Runs the chain with these kills; the exit code of every try."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(recipe), str(out), json.dumps(kills), *more],
        env=tiny_chain.environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])["exit_codes"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
def test_killed_in_every_part_the_chain_ends_with_the_same_bits(recipe: Path, finished: Path, tmp_path: Path) -> None:
    chance = random.Random(23)
    kills = [(stage, chance.randrange(*moments)) for stage, moments in RANGES.items()]
    run = tmp_path / "run"
    codes = drive(recipe, run, kills)
    assert codes == [-signal.SIGKILL] * len(kills) + [0]
    assert digests(run) == digests(finished)
    assert read_json(run / "pretrain/result.json")["resumed_from"] in (3, 6, 9, 12)
    log = run.with_name("run.log").read_text()
    assert log.count("\ncollect ") + log.startswith("collect ") == len(kills) + 1
    assert sum(line.startswith("collect ") and "kept" in line for line in log.splitlines()) == len(kills)
    for stage in ("filter", "tokenize", "pretrain", "sft"):  # done once, whatever was killed afterwards
        finishes = [line for line in log.splitlines() if line.startswith(f"{stage} ") and " s  " in line]
        assert len(finishes) == 1, (stage, finishes)
    assert len([path for path in run.rglob(".*.part")]) <= len(kills)  # what a kill left half-written never has a name that is read


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs forked")
def test_the_comparison_can_fail(recipe: Path, finished: Path, tmp_path: Path) -> None:
    assert drive(recipe, tmp_path / "run", [], "--set", "run.seed=8") == [0]
    other = digests(tmp_path / "run")
    assert all(other[name] != digest for name, digest in digests(finished).items() if name.endswith((".safetensors", ".data")))


def wait_for(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    limit = time.monotonic() + 400
    while not path.exists():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < limit, log.read_text()[-2000:]
        time.sleep(0.005)


@pytest.mark.slow
def test_a_process_killed_from_outside_goes_on_from_its_checkpoint(recipe: Path, finished: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = ["demo", "--recipe", str(recipe), "--out", str(run), "--set", "pretrain.log_every=1"]
    with open(log, "wb") as shown:
        process = subprocess.Popen(
            [sys.executable, "-m", "phial", *arguments], cwd=tiny_chain.ROOT, env=tiny_chain.environment(), stdout=shown, stderr=shown
        )
        wait_for(run / "pretrain/checkpoints/step-00000003/manifest.json", process, log)
        process.kill()
        process.wait()
    assert not (run / "results.json").exists()
    done = tiny_chain.phial(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on from step" in done.stderr
    assert read_json(run / "pretrain/result.json")["resumed_from"] >= 3
    assert digests(run) == digests(finished)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="more ranks need DeepSpeed, which is installed on Linux only")
def test_two_ranks_run_the_chain_and_leave_no_process_behind(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = ["demo", "--recipe", str(recipe), "--out", str(run), "--ranks", "2", "--set", "pretrain.threads=2"]
    # Long enough to be met in the middle of it on a fast machine.
    arguments += ["--set", 'pretrain.phases=[{name = "one", steps = 60, weights = {synthetic = 1}, max_epochs = 50}]']
    with open(log, "wb") as shown:
        process = subprocess.Popen(
            [sys.executable, "-m", "phial", *arguments], cwd=tiny_chain.ROOT, env=tiny_chain.environment(), stdout=shown, stderr=shown
        )
        wait_for(run / "pretrain/checkpoints/step-00000003/manifest.json", process, log)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "training.worker" in " ".join(command_of(child))]
        process.kill()
        process.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    done = tiny_chain.phial(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    result = read_json(run / "pretrain/result.json")
    assert result["ranks"] == 2
    assert result["resumed_from"] >= 3
    assert read_json(run / "results.json")["ranks"] == 2
    assert not [child for child in psutil.process_iter() if str(run) in " ".join(command_of(child))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
