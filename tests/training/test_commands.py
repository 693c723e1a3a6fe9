"""The verb `phial pretrain`: what it leaves in the run folder, and what a refusal does not."""

import shutil
from pathlib import Path

import pytest

import phial

RECIPE = """
[model]
preset = "tiny"

[pretrain]
context = 32
rows_per_step = 4
warmup_steps = 1
threads = 1
phases = [{ name = "one", steps = 2, weights = { web = 1.0 } }]
"""


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run beside its recipe."""
    run = tmp_path_factory.mktemp("verb") / "run"
    (run.parent / "r.toml").write_text(RECIPE, encoding="utf-8")
    for name in ("tokens", "tokenizer"):
        shutil.copytree(corpus / name, run / name)
    assert phial.run(["pretrain", str(run.parent / "r.toml"), "--out", str(run)]) == 0
    return run


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "pretrain.learning_rate=0.5"], "[pretrain] learning_rate = 0.001, and it is 0.5 now"),
        (["--set", "pretrain.learning_rate=0.5", "--ranks", "2"], "[pretrain] learning_rate = 0.001, and it is 0.5 now"),
        (["--set", "pretrain.context=65"], "context = 65 is longer"),
        (["--set", "pretrain.rows_per_step=3", "--ranks", "2"], "rows_per_step = 3 cannot be dealt"),
    ],
)
def test_a_refused_recipe_does_not_replace_the_runs(more: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "recipe.toml").read_bytes()
    assert b"learning_rate = 0.001" in before
    assert phial.run(["pretrain", str(run.parent / "r.toml"), "--out", str(run), *more]) == 2
    assert said in capsys.readouterr().err
    assert (run / "recipe.toml").read_bytes() == before


def test_what_may_change_is_written_down(run: Path) -> None:
    assert phial.run(["pretrain", str(run.parent / "r.toml"), "--out", str(run), "--set", "pretrain.keep_last=5"]) == 0
    assert "keep_last = 5" in (run / "recipe.toml").read_text(encoding="utf-8")
