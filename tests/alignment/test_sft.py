"""Fine-tuning on answers: it learns, is the same every time, survives a kill, and its folder loads everywhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.recipe import SftRecipe
from alignment.sft import fine_tune
from data_pipeline.errors import InputError

RECIPE = SftRecipe(steps=24, batch_rows=8, learning_rate=1e-2, max_length=64, save_every=4, log_every=6)

CHILD = """
import sys
from pathlib import Path
import torch
from alignment.recipe import SftRecipe
from alignment.sft import fine_tune
torch.set_num_threads(1)
recipe = SftRecipe.model_validate_json(sys.argv[1])
fine_tune(recipe, *map(Path, sys.argv[2:5]), 0, lambda step, *_: print(step, flush=True))
"""


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(base: Path, sft_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("sft")
    return out, fine_tune(RECIPE, base, sft_rows, out, 0)


def test_it_learns_and_counts(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, result = undisturbed
    assert (result["steps"], result["rows"], result["dropped_rows"], result["resumed_from"]) == (24, 40, 0, 0)
    assert result["loss_last"] < 0.7 * result["loss_first"]
    assert 0 < result["trained_tokens"] < result["tokens"]
    assert [row["step"] for row in metrics(out)] == [1, 6, 12, 18, 24]
    assert {"loss", "learning_rate", "seconds"} <= metrics(out)[0].keys()
    assert sorted(path.name for path in out.iterdir()) == ["metrics.jsonl", "model"]


def test_the_folder_loads_through_ours_and_transformers(undisturbed: tuple[Path, dict[str, Any]], base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from modeling import load_decoder

    folder = undisturbed[0] / "model"
    ids_BT = torch.tensor([[20, 40, 60, 80]])
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(load_decoder(folder)(ids_BT), theirs(ids_BT).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template == (base / "chat_template.jinja").read_text()
    assert len(theirs.generation_config.eos_token_id) == 2
    assert (folder / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_killed_run_ends_with_the_same_weights(
    undisturbed: tuple[Path, dict[str, Any]], base: Path, sft_rows: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, RECIPE.model_dump_json(), str(base), str(sft_rows), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            if int(line) == 10:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert not (tmp_path / "model").exists()
    cut_short = tmp_path / "checkpoints" / "checkpoint-11"  # as a kill in the middle of a save leaves it
    cut_short.mkdir()
    (cut_short / "trainer_state.json").write_text("{")
    again = fine_tune(RECIPE, base, sft_rows, tmp_path, 0)
    assert again["resumed_from"] == 8
    assert weights(tmp_path) == weights(undisturbed[0])
    untimed = [[{**row, "seconds": 0} for row in metrics(out)] for out in (tmp_path, undisturbed[0])]
    assert [row["step"] for row in untimed[0]] == [row["step"] for row in untimed[1]]


def test_seeds_and_packing(undisturbed: tuple[Path, dict[str, Any]], base: Path, sft_rows: Path, tmp_path: Path) -> None:
    same = RECIPE.model_copy(update={"save_every": 0})
    fine_tune(same, base, sft_rows, tmp_path / "same", 0)
    assert weights(tmp_path / "same") == weights(undisturbed[0])
    fine_tune(same, base, sft_rows, tmp_path / "other", 1)
    assert weights(tmp_path / "other") != weights(undisturbed[0])
    packed = fine_tune(same.model_copy(update={"packing": True, "batch_rows": 2}), base, sft_rows, tmp_path / "packed", 0)
    assert packed["loss_last"] < packed["loss_first"]


def test_over_long_rows_are_dropped_aloud_or_refused(base: Path, sft_rows: Path, tmp_path: Path) -> None:
    from alignment.masking import ChatEncoder
    from alignment.rows import read_chat_rows

    lengths = [len(row.ids) for row in ChatEncoder(base).encode([row.messages for row in read_chat_rows(sft_rows)], ["row"] * 40)]
    limit = sorted(lengths)[30]
    short = RECIPE.model_copy(update={"steps": 2, "max_length": limit, "save_every": 0})
    with pytest.warns(UserWarning, match=f"rows are longer than max_length = {limit} and dropped"):
        result = fine_tune(short, base, sft_rows, tmp_path, 0)
    assert result["dropped_rows"] == sum(length > limit for length in lengths) > 0
    with pytest.raises(InputError, match="longer than max_length"):
        fine_tune(short.model_copy(update={"over_long": "refuse"}), base, sft_rows, tmp_path / "refused", 0)
    assert not (tmp_path / "refused" / "model").exists()
    with pytest.raises(InputError, match="the model's context is 128"):
        fine_tune(short.model_copy(update={"max_length": 129}), base, sft_rows, tmp_path / "context", 0)


def test_trl_missing_names_its_install_line(base: Path, sft_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer", "trl"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"fine-tuning needs trl, which is not installed; install it with: pip install 'trl>=1.16,<2'"):
        fine_tune(RECIPE, base, sft_rows, tmp_path, 0)
