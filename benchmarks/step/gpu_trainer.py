"""The trainer itself on one device: `training.trainer.Run` over token shards of random documents, up to a number of steps.

All of it runs, data order, engine, optimizer, log and events, but the run stops before its first checkpoint: the state of a 3.8B model is
46 GB. What it measures are the run's own metrics; the plan's bytes are held against the allocator's peak.
"""

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, sha256_of, write_json
from data_pipeline.tokens.mixture import PhaseRecipe
from data_pipeline.tokens.recipe import TokenizerRecipe
from data_pipeline.tokens.shards import END_DTYPE
from data_pipeline.tokens.tokenizer import train_tokenizer
from modeling.config import DecoderConfig
from modeling.loss import CHUNK_TOKENS, CHUNK_TOKENS_ELSEWHERE
from modeling.presets import preset
from training.hardware import this_gpu
from training.job import Job, make_plan
from training.metrics import read_metrics
from training.plan.layouts import KEPT_FREE
from training.plan.memory import memory_of
from training.plan.run import shape_of
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.trainer import Run

WARM_STEPS = 3  # compilation, the allocator's and the optimizer's first time
MOST_ROWS = 64
TOKENIZER = TokenizerRecipe(vocab_size=320)


class Enough(Exception):
    """The steps are done."""


@dataclass(frozen=True)
class Settings:
    """One measurement; `micro_rows` 0: as many as the plan says fit."""

    preset: str
    context: int
    micro_rows: int
    accumulate: int
    steps: int
    mean: int  # tokens of a document on average
    recompute: str
    compile: bool
    precision: str = "bfloat16-master"


def make_shards(folder: Path, tokenizer: Path, tokens: int, mean: int, vocab_size: int) -> None:
    """One shard of random ids in documents of exponential lengths."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    lengths = np.maximum(2, draws.exponential(mean, 2 * tokens // mean + 8).astype(np.int64))
    ends = np.cumsum(lengths)
    ends = ends[: int(np.searchsorted(ends, tokens)) + 1]
    ids = draws.integers(1, vocab_size, int(ends[-1]))
    ids[ends - 1] = 0
    ids.astype("<u4").tofile(folder / "tokens-00000.bin")
    ends.astype(END_DTYPE).tofile(folder / "ends-00000.bin")
    entry = {"tokens_file": "tokens-00000.bin", "ends_file": "ends-00000.bin", "tokens": int(ends[-1]), "documents": len(ends)}
    entry |= {f"{name}_sha256": sha256_of(folder / f"{name}-00000.bin") for name in ("tokens", "ends")}
    manifest = {"format": 1, "source": folder.name, "dtype": "uint32", "vocab_size": vocab_size, "shards": [entry]}
    manifest |= {"tokenizer_sha256": sha256_of(tokenizer / "tokenizer.json"), "tokens": entry["tokens"], "documents": entry["documents"]}
    write_json(folder / "manifest.json", manifest)


def recipe_of(settings: Settings, micro_rows: int) -> PretrainRecipe:
    steps = settings.steps + WARM_STEPS + 1  # the last one is neither logged nor saved
    return PretrainRecipe(
        phases=(PhaseRecipe(name="all", steps=steps, weights={"random": 1.0}, max_epochs=1000),),
        context=settings.context,
        rows_per_step=micro_rows * settings.accumulate,
        micro_rows=micro_rows,
        precision=settings.precision,  # type: ignore[arg-type]
        recompute=settings.recompute,  # type: ignore[arg-type]
        compile=settings.compile,
        learning_rate=1e-4,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=steps,
    )


def planned_bytes(settings: Settings, config: DecoderConfig, micro_rows: int, device: torch.device) -> dict[str, int]:
    shape = shape_of(config, recipe_of(settings, micro_rows), LayoutRecipe(zero_stage=0), 1, settings.precision)
    return memory_of(shape, CHUNK_TOKENS.get(device.type, CHUNK_TOKENS_ELSEWHERE)).by_kind()


def rows_that_fit(settings: Settings, config: DecoderConfig, device: torch.device) -> int:
    """As many rows at a time as the plan has room for; two where there is no GPU whose memory it could know."""
    if device.type == "cpu":
        return 2
    room = torch.cuda.get_device_properties(device).total_memory * (1 - KEPT_FREE)
    fitting = [rows for rows in range(1, MOST_ROWS + 1) if planned_bytes(settings, config, rows, device)["total"] <= room]
    if not fitting:
        least = planned_bytes(settings, config, 1, device)["total"]
        raise InputError(
            f"one row of {settings.context} tokens is planned to take {least / 2**30:.1f} GiB, {room / 2**30:.1f} GiB are there; "
            "use --recompute full or a shorter --context"
        )
    return fitting[-1]


def measure_trainer(settings: Settings, device: torch.device, folder: Path) -> dict[str, Any]:
    """Tokens/s, MFU, time by part and memory of the trainer, with the plan's bytes beside the peak."""
    tokenizer = folder / "tokenizer"
    train_tokenizer(TOKENIZER, ["a few words for a tokenizer that nobody reads with"] * 8, tokenizer)
    model = ModelRecipe.model_validate(
        {"preset": settings.preset, "vocab_size": max(TOKENIZER.vocab_size, preset(settings.preset).vocab_size)}
    )
    config = model.config(model.vocab_size)
    micro_rows = settings.micro_rows or rows_that_fit(settings, config, device)
    recipe = recipe_of(settings, micro_rows)
    tokens = min(20_000_000, 2 * recipe.num_steps * recipe.rows_per_step * recipe.context)
    make_shards(folder / "tokens" / "random", tokenizer, tokens, settings.mean, config.vocab_size)
    out = folder / "run"
    layout = LayoutRecipe(zero_stage=0)
    job = Job(recipe=recipe, model=model, layout=layout, seed=0, tokens=folder / "tokens", tokenizer=tokenizer, out=out)

    def on_step(done: int) -> None:
        if done == recipe.num_steps:
            raise Enough

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run = Run(job, make_plan(job), None, on_step=on_step)
    with suppress(Enough):
        run.train()
    rows = read_metrics(out / "metrics.jsonl")[WARM_STEPS:]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    planned = planned_bytes(settings, run.plan.config, micro_rows, device)
    known = this_gpu()
    return {
        "way": f"the trainer, {run.attention}, {settings.precision}" + (", compiled" if settings.compile else ""),
        "micro_rows": micro_rows,
        "tokens_per_step": run.tokens_per_step,
        "tokens_per_s": [row["tokens_per_s"] for row in rows],
        "tokens_per_s_median": statistics.median(row["tokens_per_s"] for row in rows),
        "mfu_causal": [row["mfu_causal"] for row in rows],
        "mfu_full": [row["mfu_full"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "seconds_by_part": {part: sum(row["seconds_by_part"].get(part, 0.0) for row in rows) for part in rows[0]["seconds_by_part"]},
        "planned_bytes": planned,
        "planned_tokens_per_s": read_json(out / "plan.json")["tokens_per_s"] if known else None,
        "peak_bytes": peak,
        "planned_over_peak": planned["total"] / peak if peak else None,
    }
