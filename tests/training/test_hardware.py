"""What a run computes with here, and what it would on a GPU."""

import dataclasses
import io
from pathlib import Path

import pytest
import torch

from data_pipeline.errors import InputError
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.presets import preset
from training.hardware import check_gpus, pick_attention, threads_of
from training.recipe import ModelRecipe, PretrainRecipe
from training.trainer import pretrain

MINI, SMALL, ODD = preset("phi3-mini-4k"), preset("phi3-small-8k"), dataclasses.replace(preset("tiny"), hidden_size=24)
PHASES = [{"name": "one", "steps": 2, "weights": {"web": 1.0}}]


@pytest.mark.parametrize(
    ("device", "capability", "precision", "context", "config", "wanted"),
    [
        ("cpu", None, "float32", 256, MINI, "sdpa"),
        ("cpu", None, "bfloat16", 512, MINI, "eager"),
        ("cpu", None, "bfloat16", 513, MINI, "sdpa"),
        ("cuda", (9, 0), "bfloat16", 256, MINI, "varlen"),
        ("cuda", (8, 0), "bfloat16-master", 4096, MINI, "varlen"),
        ("cuda", (7, 5), "bfloat16", 4096, MINI, "sdpa"),
        ("cuda", (9, 0), "float32", 4096, MINI, "sdpa"),
        ("cuda", (9, 0), "bfloat16", 64, ODD, "sdpa"),
        ("cuda", (9, 0), "bfloat16", 8192, SMALL, "flex"),
        ("cuda", (9, 0), "float32", 8192, SMALL, "flex"),
        ("cuda", (9, 0), "bfloat16", 64, preset("tiny-small"), "sdpa"),
    ],
)
def test_the_kernel_that_auto_means(
    device: str,
    capability: tuple[int, int] | None,
    precision: str,
    context: int,
    config: DecoderConfig,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_attention(torch.device(device), precision, context, config) == wanted


def test_threads_of_deterministic_ranks_are_not_divided() -> None:
    """How many threads add up decides bits: four ranks must compute as one does."""
    shared, fixed = PretrainRecipe(threads=4), PretrainRecipe(threads=4, deterministic=True)
    assert [threads_of(shared, ranks) for ranks in (1, 2, 8)] == [4, 2, 1]
    assert [threads_of(fixed, ranks) for ranks in (1, 2, 8)] == [4, 4, 4]


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_gpus(64)  # no GPU: every rank is on the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(2)
    with pytest.raises(InputError, match="--ranks 3: this machine has 2 GPUs"):
        check_gpus(3)


def run(corpus: Path, out: Path, stream: io.StringIO, **settings) -> dict:
    recipe = PretrainRecipe(
        phases=PHASES, context=32, rows_per_step=2, warmup_steps=1, threads=1, checkpoint_every=1, precision="float32", **settings
    )
    model = ModelRecipe(preset="tiny")
    return pretrain(recipe, model, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, stream=stream)


def test_a_run_says_its_attention_and_takes_the_one_that_is_named(corpus: Path, tmp_path: Path) -> None:
    losses = {}
    for attention, said in (("auto", "sdpa"), ("eager", "eager")):
        stream = io.StringIO()
        losses[attention] = run(corpus, tmp_path / attention, stream, attention=attention)["loss"]
        assert stream.getvalue().splitlines()[0].endswith(f", attention {said}")
    assert losses["eager"] == pytest.approx(losses["auto"], rel=1e-5)
    assert run(corpus, tmp_path / "auto", io.StringIO(), attention="eager")["resumed_from"] == 2  # another kernel, the same training
    with pytest.raises(ModelError, match="attention backend 'varlen' needs a CUDA device"):
        run(corpus, tmp_path / "varlen", io.StringIO(), attention="varlen")


def test_a_full_device_is_one_line_with_the_plan(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("training.replicated.ReplicatedEngine.step", full)
    with pytest.raises(InputError, match=r"rank 0's device is full; the plan is 0\.0 GiB. Lower \[pretrain\] micro_rows \(2 now\)"):
        run(corpus, tmp_path / "full", io.StringIO())
