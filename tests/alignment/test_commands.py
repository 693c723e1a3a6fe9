"""The verbs read the folders of a run, and name the verb to run first where one is missing."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import phial

RECIPE = """
[sft]
steps = 3
batch_rows = 4
max_length = 64
[dpo]
steps = 3
batch_rows = 4
max_length = 64
"""


def call(*words: str) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(phial.app, list(words))
    return done.exit_code, done.stdout, done.exception


def test_sft_then_dpo_in_a_run_folder(base: Path, sft_rows: Path, dpo_rows: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    with pytest.raises(Exception, match="run `phial pretrain` first, or give --model"):
        raise call("sft", str(recipe), "--out", str(run))[2] or AssertionError
    with pytest.raises(Exception, match="run `phial sft` first, or give --model"):
        raise call("dpo", str(recipe), "--out", str(run))[2] or AssertionError
    shutil.copytree(base, run / "pretrain" / "model")
    with pytest.raises(Exception, match="run `phial data synthesize` first, or give --data"):
        raise call("sft", str(recipe), "--out", str(run))[2] or AssertionError
    code, text, error = call("sft", str(recipe), "--out", str(run), "--data", str(sft_rows), "--json")
    assert code == 0, error
    assert json.loads(text)["steps"] == 3
    code, text, error = call("dpo", str(recipe), "--out", str(run), "--data", str(dpo_rows), "--set", "dpo.steps=2")
    assert code == 0, error
    assert "2 steps over 40 rows" in text
    assert (run / "dpo" / "model" / "model.safetensors").is_file()
    assert "steps = 2" in (run / "recipe.toml").read_text()
