"""Two ranks against one: the same losses, norms and weights, and checkpoints that go from either to the other."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from modeling import load_decoder
from training.launch import describe_death
from training.metrics import read_metrics
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.trainer import pretrain

ROOT = Path(__file__).resolve().parents[2]
PHASES = [{"name": "one", "steps": 8, "weights": {"web": 1.0, "synthetic": 1.0}}]
RECIPE = PretrainRecipe(
    phases=PHASES,  # type: ignore[arg-type]
    context=32,
    rows_per_step=8,
    micro_rows=2,
    learning_rate=3e-3,
    warmup_steps=2,
    clip=0.5,
    precision="float32",
    checkpoint_every=4,
    log_every=1,
    threads=1,
)
MODEL = ModelRecipe(preset="tiny", window_keys=0)


def run(corpus: Path, out: Path, ranks: int, **settings) -> dict:
    layout = LayoutRecipe(**{name: settings.pop(name) for name in list(settings) if name in LayoutRecipe.model_fields})
    recipe = RECIPE.model_copy(update=settings)
    return pretrain(recipe, MODEL, layout=layout, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, seed=5, ranks=ranks)


def assert_equal_runs(one: Path, other: Path) -> None:
    for ours, theirs in zip(read_metrics(one / "metrics.jsonl"), read_metrics(other / "metrics.jsonl"), strict=True):
        assert ours["step"] == theirs["step"]
        assert abs(ours["loss"] - theirs["loss"]) < 5e-6
        assert abs(ours["grad_norm"] / theirs["grad_norm"] - 1) < 2e-5
    for (name, ours), theirs in zip(
        load_decoder(one / "model").named_parameters(), load_decoder(other / "model").parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def drop_after(out: Path, step: int) -> None:
    """Leaves the run as a kill after `step` would."""
    for folder in (out / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    shutil.rmtree(out / "model")


@pytest.fixture(scope="module")
def one_rank(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    run(corpus, out, 1)
    return out


def test_two_ranks_equal_one_and_checkpoints_cross(corpus: Path, one_rank: Path, tmp_path: Path):
    result = run(corpus, tmp_path, 2)
    assert result["ranks"] == 2
    assert (tmp_path / "deepspeed.json").exists()
    assert_equal_runs(one_rank, tmp_path)
    drop_after(tmp_path, 4)
    assert run(corpus, tmp_path, 1)["resumed_from"] == 4
    assert_equal_runs(one_rank, tmp_path)
    drop_after(tmp_path, 4)
    assert run(corpus, tmp_path, 2)["resumed_from"] == 4
    assert_equal_runs(one_rank, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [3])  # every stage: test_engines.py, test_layout_changes.py
def test_other_zero_stages_equal_one_rank(corpus: Path, one_rank: Path, tmp_path: Path, stage: int):
    run(corpus, tmp_path, 2, zero_stage=stage)
    assert_equal_runs(one_rank, tmp_path)
    drop_after(tmp_path, 4)
    assert run(corpus, tmp_path, 2, zero_stage=stage)["resumed_from"] == 4
    assert_equal_runs(one_rank, tmp_path)


@pytest.fixture
def long_run(corpus: Path, tmp_path: Path):
    """The launcher of a two-rank run of many steps as a process, and its two ranks once they train."""
    out = tmp_path / "run"
    phases = [{"name": "one", "steps": 3000, "weights": {"web": 1.0}, "max_epochs": 100_000}]
    settings = {**RECIPE.model_dump(mode="json"), "phases": phases, "checkpoint_every": 3000}
    job = {"recipe": settings, "layout": {}, "model": MODEL.model_dump(mode="json"), "seed": 5}
    job |= {"tokens": str(corpus / "tokens"), "tokenizer": str(corpus / "tokenizer"), "out": str(out)}
    code = "import json, sys; from training.job import Job; from training.launch import launch; "
    code += "launch(Job.from_json(json.loads(sys.argv[1])), 2, None)"
    launcher = subprocess.Popen([sys.executable, "-c", code, json.dumps(job)], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_for(lambda: (out / "metrics.jsonl").exists(), 120)
    ranks = [child for child in psutil.Process(launcher.pid).children() if "training.worker" in child.cmdline()]
    assert len(ranks) == 2
    yield launcher, ranks
    launcher.kill()
    launcher.communicate()
    for rank in ranks:
        if rank.is_running():
            rank.kill()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not so after {seconds:g} s"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_dead_rank_is_named_and_the_others_are_ended(long_run):
    launcher, ranks = long_run
    victim = next(rank for rank in ranks if rank.environ()["RANK"] == "1")
    victim.kill()
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert "pretrain: rank 1 was killed by signal 9; all ranks were ended" in errors
    wait_for(lambda: not any(rank.is_running() for rank in ranks), 10)


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_orphans(long_run):
    launcher, ranks = long_run
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks), 20)


def test_the_line_of_a_dead_rank(tmp_path: Path):
    log = tmp_path / "rank-1.log"
    log.write_text("first\n\nTraceback\nMemoryError\n")
    line = describe_death(1, 1, log)
    assert "rank 1 ended with exit code 1" in line
    assert "Traceback | MemoryError" in line
    assert "\n" not in line


def test_a_lock_left_by_a_killed_build_is_removed_with_a_line(tmp_path: Path, monkeypatch):
    from training import zero

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(zero, "build_is_running", lambda: False)
    (tmp_path / "py311_cpu/some_op").mkdir(parents=True)
    lock = tmp_path / "py311_cpu/some_op/lock"
    lock.touch()
    said: list[str] = []
    zero.remove_stale_locks(said.append)
    assert not lock.exists()
    assert str(lock) in said[0]
    monkeypatch.setattr(zero, "build_is_running", lambda: True)
    lock.touch()
    zero.remove_stale_locks(said.append)
    assert lock.exists()
