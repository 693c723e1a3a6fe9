"""Recipe sections, schedule, decay groups, dealing of rows, metrics."""

import math
from pathlib import Path
from typing import get_args

import pytest

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from modeling.backends import BACKENDS
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.presets import preset
from training.batches import BatchPlan
from training.job import Job, make_plan
from training.metrics import Metrics, read_metrics
from training.optimizer import split_by_decay
from training.recipe import Attention, LayoutRecipe, ModelRecipe, PretrainRecipe
from training.schedule import learning_rate

PHASES = [{"name": "one", "steps": 6, "weights": {"web": 1.0}}, {"name": "two", "steps": 4, "weights": {"web": 1.0, "synthetic": 3.0}}]


def recipe(**settings) -> PretrainRecipe:
    return PretrainRecipe(**{"phases": PHASES, "context": 32, "rows_per_step": 8, "warmup_steps": 2, **settings})


def job(corpus: Path, out: Path, model: ModelRecipe | None = None, **settings) -> Job:
    shape = model or ModelRecipe(preset="tiny")
    return Job(recipe=recipe(**settings), model=shape, seed=5, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out)


MODELS = {"pretrain": PretrainRecipe, "model": ModelRecipe, "layout": LayoutRecipe}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layout.sequence=true", "sequence=true splits tokens over tensor ranks, and tensor=1"),
        ("pretrain.learning_rate=0", "learning_rate = 0"),
        ("pretrain.schedule=linear", "schedule = 'linear'"),
        ("layout.zero_stage=4", "zero_stage = 4"),
        ("pretrain.lr=0.1", "no setting 'lr'"),
        ("pretrain.warmup_steps=11", "warmup_steps=11 is more than the 10 steps"),
        ("pretrain.threads=99999999999", "threads = 99999999999: input should be less than or equal to 1024"),
        ("model.layers=3", "no setting 'layers'"),
        ("pretrain.attention=fast", "attention = 'fast'.*'sdpa', 'eager', 'flex', 'varlen' or 'flash'"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str):
    loaded = Recipe({"pretrain": {"phases": PHASES}}, "here.toml")
    loaded.override(override)
    with pytest.raises(InputError, match=message):
        loaded.section(section := override.split(".")[0], MODELS[section])


def test_settings_that_do_not_fit_each_other_are_told_without_the_section():
    with pytest.raises(InputError) as caught:
        Recipe({"pretrain": {"phases": PHASES, "warmup_steps": 11}}, "here.toml").section("pretrain", PretrainRecipe)
    assert str(caught.value) == "here.toml: [pretrain] warmup_steps=11 is more than the 10 steps of all phases"


def test_every_backend_may_be_named():
    assert set(get_args(Attention)) == {"auto", *BACKENDS}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 40, "float8": "tensorwise"}, "context=40 is not a multiple of 16, which float8='tensorwise' needs"),
        ({"context": 32, "float8": "rowwise", "precision": "float32"}, "float8='rowwise' gives bfloat16 products only"),
    ],
)
def test_what_float8_cannot_take_is_one_line(settings: dict, message: str):
    with pytest.raises(InputError, match=message) as caught:
        Recipe({"pretrain": {"phases": PHASES, "warmup_steps": 2, **settings}}, "here.toml").section("pretrain", PretrainRecipe)
    assert "\n" not in str(caught.value)
    assert recipe(float8="tensorwise", precision="float32").context == 32
    assert recipe(float8="rowwise").micro_rows == 0


def test_model_sizes_override_the_preset():
    config = ModelRecipe(preset="tiny", num_layers=3, num_heads=8, window_keys=0).config(320, eos_ids=(0, 7), pad_id=0)
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.window_keys) == (3, 8, 8, None)
    assert (config.vocab_size, config.hidden_size, config.eos_ids) == (320, preset("tiny").hidden_size, (0, 7))
    with pytest.raises(ModelError, match="no decoder preset"):
        ModelRecipe(preset="huge").config(320)
    with pytest.raises(ModelError, match="hidden_size=33 is not a multiple"):
        ModelRecipe(preset="tiny", hidden_size=33).config(320)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 65}, "context = 65 is longer than the decoder's max_positions = 64"),
        ({"phases": []}, "phases is empty"),
        ({"phases": [{"name": "x", "steps": 2, "weights": {"web_clean": 1}}]}, "web_clean"),
        ({"phases": [{"name": "x", "steps": 20000, "weights": {"web": 1}}]}, "max_epochs"),
        ({"model": ModelRecipe(preset="tiny", vocab_size=2 * 10**9)}, r"parameters take .* GiB to train, this machine has"),
        ({"model": ModelRecipe(preset="tiny", vocab_size=64)}, "vocab_size = 64 is less than the tokenizer's 320"),
    ],
)
def test_what_cannot_work_is_refused_before_training(corpus: Path, tmp_path: Path, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        make_plan(job(corpus, tmp_path, **settings))


def test_compile_without_a_compiler_is_refused_before_training(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match=r"^\[pretrain\] compile = true needs a C\+\+ compiler on a CPU; 'no-such-compiler' is not"):
        make_plan(job(corpus, tmp_path, compile=True))
    assert make_plan(job(corpus, tmp_path)).config.num_layers == 2


def test_a_job_survives_its_journey_to_a_rank(corpus: Path, tmp_path: Path):
    one = job(corpus, tmp_path)
    assert Job.from_json(one.to_json()) == one
    assert make_plan(Job.from_json(one.to_json())).identity == make_plan(one).identity


def test_cosine_and_wsd():
    cosine = recipe(learning_rate=1e-2, min_ratio=0.1)
    rates = [learning_rate(cosine, step, 10) for step in range(10)]
    assert rates[:2] == pytest.approx([5e-3, 1e-2])
    assert rates[-1] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx(1e-2 * (0.1 + 0.9 * (1 + math.cos(math.pi * 3 / 7)) / 2))
    wsd = [learning_rate(recipe(schedule="wsd", decay_fraction=0.3, min_ratio=0.0, learning_rate=1.0), step, 10) for step in range(10)]
    assert wsd == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0])


def test_norms_and_embeddings_do_not_decay():
    decoder = Decoder(preset("tiny"))
    names = {id(parameter): name for name, parameter in decoder.named_parameters()}
    decayed, kept = ([names[id(one)] for one in group] for group in split_by_decay(decoder))
    assert len(decayed) + len(kept) == len(names)
    assert all("norm" in name or name == "embedding.weight" for name in kept)
    assert "head.weight" in decayed
    assert not any("norm" in name for name in decayed)


def test_rows_are_dealt_evenly_or_not_at_all():
    assert (BatchPlan.deal(16, 5, 2).micro, BatchPlan.deal(16, 5, 2).accumulation) == (4, 2)
    assert BatchPlan.deal(16, 0, 1).accumulation == 1
    with pytest.raises(InputError, match="rows_per_step = 16 cannot be dealt to 3 ranks"):
        BatchPlan.deal(16, 0, 3)


def test_metrics_rewind_drops_later_rows_and_a_torn_line(tmp_path: Path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (2, 4, 6):
        metrics.append({"step": step, "loss": 1.0})
    with open(metrics.path, "ab") as stream:
        stream.write(b'{"step": 8, "lo')
    metrics.rewind(4)
    assert [row["step"] for row in read_metrics(metrics.path)] == [2, 4]
    metrics.append({"step": 6, "loss": 2.0})
    assert [row["step"] for row in read_metrics(metrics.path)] == [2, 4, 6]
