"""A run that is killed and started again ends with the weights of an undisturbed run, bit for bit; and what may not be gone on from."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_pipeline.errors import InputError
from modeling.checkpoint import list_checkpoints
from training import job, trainer
from training.events import read_events, record
from training.metrics import read_metrics
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.run_lock import run_lock
from training.state import WEIGHT, Fragment
from training.step_log import Clock
from training.trainer import pretrain, seed_dropout

ROOT = Path(__file__).resolve().parents[2]
PHASES = [{"name": "one", "steps": 7, "weights": {"web": 1.0}}, {"name": "two", "steps": 7, "weights": {"web": 1.0, "synthetic": 3.0}}]
SETTINGS = {
    "phases": PHASES,
    "context": 32,
    "rows_per_step": 4,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "keep_last": 2,
    "log_every": 2,
    "threads": 1,
}
KILLS = 12


def train(corpus: Path, out: Path, seed: int = 5, **settings) -> dict:
    recipe = PretrainRecipe(**{**SETTINGS, **settings})
    return pretrain(
        recipe, ModelRecipe(preset="tiny"), tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, seed=seed, stream=sys.stderr
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model/model.safetensors")


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def timeless(out: Path) -> list[dict]:
    return [
        {name: value for name, value in row.items() if not any(word in name for word in ("second", "per_s", "memory"))}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def stop_after(out: Path, step: int) -> None:
    """Leaves the run as a kill after `step` would, its metrics being ahead of its checkpoint."""
    for folder in (out / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    shutil.rmtree(out / "model")


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    train(corpus, out)
    return out


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    """A run of its own to damage."""
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
def test_killed_again_and_again_it_ends_with_the_same_bits(corpus: Path, undisturbed: Path, tmp_path: Path):
    program = [sys.executable, str(ROOT / "tests/training/killed_runs.py"), str(corpus), str(tmp_path), "11", str(KILLS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = json.loads(done.stdout.splitlines()[-1])["exit_codes"]
    assert codes[-1] == 0
    assert codes.count(-9) >= KILLS // 2, "too few kills struck"
    assert equal(undisturbed, tmp_path)
    assert timeless(undisturbed) == timeless(tmp_path)
    assert [Path(path).name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000012", "step-00000014"]
    leftovers = [path.name for path in tmp_path.rglob("*") if ".part" in path.name]
    assert len(leftovers) <= KILLS


def moments(fragments: Iterable[Fragment]) -> Iterable[Fragment]:
    return (one for one in fragments if one.kind != WEIGHT)


def test_going_on_equals_never_stopping_and_forgetting_the_moments_does_not(corpus: Path, undisturbed: Path, copy: Path, monkeypatch):
    stop_after(copy, 12)
    shutil.copytree(copy, copy.parent / "wrong")
    assert train(corpus, copy)["resumed_from"] == 12
    assert equal(undisturbed, copy)
    assert timeless(undisturbed) == timeless(copy)
    monkeypatch.setattr(
        trainer, "restore", lambda fragments, pieces, checkpoint: [one.put(one.values * (one.kind == "weight")) for one in fragments]
    )
    train(corpus, copy.parent / "wrong")
    assert not equal(undisturbed, copy.parent / "wrong")


def test_a_longrope_model_is_gone_on_from(corpus: Path, tmp_path: Path) -> None:
    """Its configuration holds tuples inside a table, which a manifest gives back as lists."""
    model = ModelRecipe(preset="phi3.5-mini", hidden_size=96, intermediate_size=16, num_layers=1, num_heads=1)
    paths = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer", "out": tmp_path / "run"}
    pretrain(PretrainRecipe(**SETTINGS), model, seed=5, stream=sys.stderr, **paths)
    stop_after(tmp_path / "run", 12)
    assert pretrain(PretrainRecipe(**SETTINGS), model, seed=5, stream=sys.stderr, **paths)["resumed_from"] == 12


def test_dropout_differs_between_ranks_and_steps_and_is_the_same_again() -> None:
    def drawn(seed: int, step: int, rank: int) -> float:
        seed_dropout(seed, step, rank)
        return float(torch.rand(()))

    numbers = [drawn(*one) for one in ((5, 0, 0), (5, 0, 1), (5, 1, 0), (6, 0, 0))]
    assert len(set(numbers)) == 4
    assert drawn(5, 0, 1) == numbers[1]


def test_a_finished_run_is_left_as_it_is(corpus: Path, undisturbed: Path, copy: Path):
    result = train(corpus, copy)
    assert result["resumed_from"] == 14
    assert result["loss"] == json.loads((undisturbed / "result.json").read_text())["loss"]
    assert equal(undisturbed, copy)
    assert timeless(undisturbed) == timeless(copy)


def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_used(corpus: Path, undisturbed: Path, copy: Path, capfd):
    part = next((copy / "checkpoints/step-00000014").glob("part-*.safetensors"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert train(corpus, copy)["resumed_from"] == 12
    assert part.name in capfd.readouterr().err
    assert equal(undisturbed, copy)


def remove_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")  # as storage that is not mounted looks


def damage_checkpoints(run: Path) -> None:
    for part in run.glob("checkpoints/*/part-*.safetensors"):
        part.write_bytes(b"not a checkpoint")


@pytest.mark.parametrize(("lose", "settings"), [(remove_checkpoints, {}), (damage_checkpoints, {}), (None, {"checkpoints": "elsewhere"})])
def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(corpus: Path, copy: Path, lose, settings: dict) -> None:
    if lose is not None:
        lose(copy)
    settings = {name: str(copy.parent / value) for name, value in settings.items()}
    before = (copy / "metrics.jsonl").read_bytes()
    message = (
        r"no intact checkpoint is here, and .*events.jsonl tells of one of step 14; mount or put back what was there, or start over by"
    )
    with pytest.raises(InputError, match=message) as caught:
        train(corpus, copy, **settings)
    assert (copy / "metrics.jsonl").read_bytes() == before
    assert str(caught.value).endswith(f"deleting {copy}" + "".join(f" and {one}" for one in settings.values()))


def test_what_a_run_that_starts_over_may_delete_is_its_own(corpus: Path, copy: Path, tmp_path: Path) -> None:
    """Checkpoints may lie in a folder that others share: the line names it, not the one above."""
    shared = tmp_path / "shared/this-run"
    shutil.copytree(copy / "checkpoints", shared)
    with pytest.raises(InputError, match=rf"put it back, or start over by deleting {copy} and {shared}$"):
        train(corpus, copy, checkpoints=str(shared), learning_rate=1e-3)


def test_a_rewind_to_the_beginning_leaves_nothing_to_miss(corpus: Path, copy: Path) -> None:
    remove_checkpoints(copy)
    record(copy, "rewound", 14, to=0)
    assert train(corpus, copy)["resumed_from"] is None


def test_two_runs_do_not_share_a_folder(corpus: Path, copy: Path) -> None:
    with run_lock(copy), pytest.raises(InputError, match=r"is being trained into already \(pid \d+ on .*\); wait for it"):
        train(corpus, copy)
    assert train(corpus, copy)["resumed_from"] == 14


def test_precision_is_what_auto_has_become(corpus: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on on other hardware would compute otherwise without a word."""
    monkeypatch.setattr(job, "resolve_precision", lambda _: ("bfloat16-master", ""))
    with pytest.raises(InputError, match=r"\[pretrain\] precision = '\w+', and it is 'bfloat16-master' now"):
        train(corpus, copy)


def test_evaluations_and_the_model_folder_move_the_heartbeat(corpus: Path, tmp_path: Path) -> None:
    recipe = PretrainRecipe(
        **{**SETTINGS, "phases": [{"name": "one", "steps": 2, "weights": {"web": 1.0}}], "validation": {"synthetic": 6}}
    )
    where = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer", "out": tmp_path}
    one = job.Job(recipe=recipe, model=ModelRecipe(preset="tiny"), seed=5, **where)
    beats: list[int] = []
    trainer.Run(one, job.make_plan(one), None, on_step=beats.append).train()
    rounds, tensors = -(-6 // 4), len(weights(tmp_path))
    assert beats[:2] == [1, 2]
    assert set(beats[2:]) == {2}
    assert len(beats) - 2 >= rounds + tensors


def test_cpu_seconds_of_all_ranks_are_kept_by_one() -> None:
    assert Clock({"cpu_seconds": 1e6}).cpu_seconds >= 1e6
    assert Clock({"cpu_seconds": 1e6}, keeps_cpu=False).cpu_seconds < 1e6


@pytest.mark.parametrize(
    ("settings", "layout", "message"),
    [
        ({"deterministic": True, "micro_rows": 1, "threads": 0}, {}, r"needs the same threads in every rank.*set threads, each rank's"),
        ({}, {"offload": "cpu"}, r"\[layout\] offload = 'cpu' is ZeRO's, which a run of one rank does without"),
        ({"deterministic": True, "micro_rows": 1}, {"offload": "cpu"}, "which a run with .pretrain. deterministic = true does without"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(corpus: Path, tmp_path: Path, settings: dict, layout: dict, message: str) -> None:
    recipe = PretrainRecipe(**{**SETTINGS, **settings})
    paths = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer", "out": tmp_path}
    with pytest.raises(InputError, match=message):
        pretrain(recipe, ModelRecipe(preset="tiny"), layout=LayoutRecipe(**layout), **paths)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e-3}, r"\[pretrain\] learning_rate = 0.003, and it is 0.001 now"),
        ({"schedule": "wsd"}, r"\[pretrain\] schedule"),
        ({"seed": 6}, r"\[run\] seed = 5, and it is 6 now"),
        ({"phases": PHASES[:1]}, r"with other \[pretrain\] phases than the recipe has now; put them back, give --edit-mixture"),
    ],
)
def test_another_recipe_does_not_go_on_from_the_checkpoint(corpus: Path, copy: Path, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        train(corpus, copy, **settings)


def test_other_shards_do_not_go_on_from_the_checkpoint(corpus: Path, copy: Path, tmp_path: Path):
    other = tmp_path / "corpus"
    shutil.copytree(corpus, other)
    shutil.rmtree(other / "tokens/web")
    shutil.copytree(corpus / "tokens/synthetic", other / "tokens/web")
    with pytest.raises(InputError, match="other token shards"):
        train(other, copy)


def test_how_it_is_computed_may_change(corpus: Path, undisturbed: Path, copy: Path):
    stop_after(copy, 12)
    train(corpus, copy, micro_rows=1, keep_last=3, log_every=7, checkpoint_every=5)
    ours, theirs = weights(copy), weights(undisturbed)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4


def test_an_edited_mixture_goes_on_and_is_recorded(corpus: Path, undisturbed: Path, copy: Path) -> None:
    """The steps before stay, those after follow the new phases, and going on again needs no flag."""
    stop_after(copy, 12)
    other = [PHASES[0], {"name": "two", "steps": 8, "weights": {"synthetic": 1.0}}]
    recipe = PretrainRecipe(**{**SETTINGS, "phases": other})
    paths = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer", "out": copy}
    result = pretrain(recipe, ModelRecipe(preset="tiny"), seed=5, edit_mixture=True, **paths)
    assert (result["steps"], result["resumed_from"]) == (15, 12)
    (event,) = [event for event in read_events(copy) if event["kind"] == "mixture"]
    assert event["step"] == 12
    rows, before = read_metrics(copy / "metrics.jsonl"), read_metrics(undisturbed / "metrics.jsonl")
    assert [row["loss"] for row in rows[:6]] == [row["loss"] for row in before[:6]]
    read = before[5]["rows_read"]
    assert rows[-1]["rows_read"] == {"web": read["web"], "synthetic": read["synthetic"] + 3 * 4}
    assert pretrain(recipe, ModelRecipe(preset="tiny"), seed=5, **paths)["resumed_from"] == 15


def test_every_nth_checkpoint_is_kept(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path, checkpoint_every=2, keep_last=1, keep_every=6)
    assert [Path(path).name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000006", "step-00000012", "step-00000014"]


def test_held_out_rows_are_read_while_the_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    phases = [{"name": "one", "steps": 14, "weights": {"web": 1.0}}]
    recipe = PretrainRecipe(**{**SETTINGS, "phases": phases, "validation": {"synthetic": 6}, "evaluate_every": 7})
    pretrain(
        recipe,
        ModelRecipe(preset="tiny"),
        seed=5,
        tokens=corpus / "tokens",
        tokenizer=corpus / "tokenizer",
        out=tmp_path,
    )
    found = [event for event in read_events(tmp_path) if event["kind"] == "evaluated"]
    assert [event["step"] for event in found] == [7, 14]
    assert found[1]["validation/synthetic"] < found[0]["validation/synthetic"]


def test_weights_to_begin_with(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    """A finished run's folder and its checkpoint begin alike; another shape is refused by name."""
    for number, source in enumerate(("model", "checkpoints/step-00000014")):
        train(corpus, tmp_path / str(number), initial=str(undisturbed / source), log_every=1)
    first, other = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("0", "1"))
    assert [row["loss"] for row in first] == [row["loss"] for row in other]
    assert first[0]["loss"] < read_metrics(undisturbed / "metrics.jsonl")[0]["loss"] - 0.5
    with pytest.raises(InputError, match="has num_layers = 2"):
        pretrain(
            PretrainRecipe(**{**SETTINGS, "initial": str(undisturbed / "model")}),
            ModelRecipe(preset="tiny", num_layers=1),
            tokens=corpus / "tokens",
            tokenizer=corpus / "tokenizer",
            out=tmp_path / "other",
        )


def test_checkpoints_may_lie_in_an_object_store(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Any fsspec address: written, listed, pruned and gone on from as in a folder."""
    address = f"memory://{tmp_path.name}/checkpoints"
    train(corpus, tmp_path, checkpoints=address)
    assert [Path(path).name for path in list_checkpoints(address)] == ["step-00000012", "step-00000014"]
    assert not (tmp_path / "checkpoints").exists()
    assert equal(undisturbed, tmp_path)
    shutil.rmtree(tmp_path / "model")
    assert train(corpus, tmp_path, checkpoints=address)["resumed_from"] == 14
    assert equal(undisturbed, tmp_path)


def test_the_page_of_a_run(undisturbed: Path) -> None:
    """It has the curves, the settings and nothing from elsewhere; names are escaped."""
    text = (undisturbed / "run.html").read_text()
    assert text.count("<polyline") >= 4
    kept = [event["step"] for event in read_events(undisturbed) if event["kind"] == "checkpoint"]
    assert kept == [3, 6, 9, 12, 14], "every checkpoint is an event, the last one too"
    assert "finished" in text
    assert "src=" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "36,000" in text
