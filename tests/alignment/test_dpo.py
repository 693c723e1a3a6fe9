"""Preferences: the first loss is ln 2, the margin rises, and the same seed gives the same weights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.dpo import prefer, reference_batches
from alignment.recipe import DpoRecipe

RECIPE = DpoRecipe(steps=12, batch_rows=8, learning_rate=1e-2, max_length=64, log_every=4, precision="float32")


@pytest.fixture(scope="module")
def trained(base: Path, dpo_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("dpo")
    return out, prefer(RECIPE, base, dpo_rows, out, 0)


def test_it_starts_at_ln_2_and_raises_the_margin(trained: tuple[Path, dict[str, Any]]) -> None:
    out, result = trained
    assert result["loss_first"] == pytest.approx(math.log(2), abs=1e-6)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert result["margin_last"] > 0.1
    assert result["accuracy_last"] > 0.8
    assert sorted(path.name for path in out.iterdir()) == ["metrics.jsonl", "model"]


def test_the_weights_are_a_function_of_the_seed(trained: tuple[Path, dict[str, Any]], base: Path, dpo_rows: Path, tmp_path: Path) -> None:
    prefer(RECIPE, base, dpo_rows, tmp_path, 0)
    file = Path("model") / "model.safetensors"
    assert (tmp_path / file).read_bytes() == (trained[0] / file).read_bytes()


def test_a_copy_as_reference_gives_the_same_losses(
    trained: tuple[Path, dict[str, Any]], base: Path, dpo_rows: Path, tmp_path: Path
) -> None:
    result = prefer(RECIPE.model_copy(update={"precompute_reference": False}), base, dpo_rows, tmp_path, 0)
    for name in ("loss_first", "loss_last", "margin_last"):
        assert result[name] == pytest.approx(trained[1][name], abs=1e-3)


def test_reference_batches_hold_every_row_once() -> None:
    lengths = [50 + 31 * row % 400 for row in range(100)]
    batches = reference_batches(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert all(2 * len(batch) * max(lengths[row] for row in batch) <= 4096 for batch in batches)
