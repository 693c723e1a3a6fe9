"""Two ranks against one: the same losses, norms and weights, and checkpoints that go from either to the other."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from modeling import load_decoder
from training.launch import RankFailure, describe_death, launch
from training.job import Job
from training.metrics import read_metrics
from training.recipe import ModelRecipe, PretrainRecipe
from training.trainer import pretrain

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
    recipe = RECIPE.model_copy(update=settings)
    return pretrain(recipe, MODEL, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, seed=5, ranks=ranks)


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
    import shutil

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
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_other_zero_stages_equal_one_rank(corpus: Path, one_rank: Path, tmp_path: Path, stage: int):
    run(corpus, tmp_path, 2, zero_stage=stage)
    assert_equal_runs(one_rank, tmp_path)
    drop_after(tmp_path, 4)
    assert run(corpus, tmp_path, 2, zero_stage=stage)["resumed_from"] == 4
    assert_equal_runs(one_rank, tmp_path)
