"""Pretraining: the loop, short, and what it hands back."""

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from data_pipeline.errors import InputError
from data_pipeline.provenance import peak_rss_bytes
from data_pipeline.storage import write_json
from modeling.checkpoint import Checkpoint
from modeling.counts import count_parameters
from modeling.decoder import Decoder
from modeling.hf_weights import write_hf_folder
from modeling.initialise import initialise
from modeling.model_checkpoint import decoder_metadata
from modeling.rope import factors_of_length
from training.batches import BatchPlan, read_batch
from training.checkpoint import CheckpointStore
from training.engine import Engine, PlainEngine, StepResult, load_weights
from training.hardware import pick_attention, pick_device, resolve_precision, threads_per_rank
from training.job import Job, Plan, make_plan
from training.metrics import Metrics
from training.progress import TrainingProgress
from training.recipe import ModelRecipe, PretrainRecipe
from training.schedule import learning_rate


def pretrain(
    recipe: PretrainRecipe,
    model: ModelRecipe,
    *,
    tokens: str | Path,
    tokenizer: str | Path,
    out: str | Path,
    seed: int = 0,
    ranks: int = 1,
    stream: TextIO | None = None,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Trains a decoder on token shards; goes on from the last complete checkpoint in `out` if there is one.

    `tokens` holds one folder of shards per source. `out` gets checkpoints/, metrics.jsonl, result.json and model/ (Hugging Face's layout
    with the tokenizer's files). Progress goes to `stream`; `accepted` is called when nothing was refused, before the first step.
    Returns steps, tokens, loss, parameters, tokens_per_s, seconds, cpu_seconds, peak_rss_bytes, resumed_from, ranks, precision and
    model; seconds count all runs that led here.
    """
    job = Job(recipe=recipe, model=model, seed=seed, tokens=Path(tokens), tokenizer=Path(tokenizer), out=Path(out))
    plan = make_plan(job)  # every mistake is told before a rank is started
    BatchPlan.deal(recipe.rows_per_step, recipe.micro_rows, ranks)
    if ranks > 1:
        from training.launch import launch

        CheckpointStore(job.out / "checkpoints", recipe.keep_last, plan.identity).latest(lambda line: None)
        accepted()
        return launch(job, ranks, stream)
    before = torch.get_num_threads()
    torch.set_num_threads(threads_per_rank(recipe.threads, 1))
    try:
        return Run(job, plan, stream).train(accepted)
    finally:
        torch.set_num_threads(before)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Dropout masks depend on the step and the rank alone: ranks differ from one another, and a resumed run from nothing."""
    torch.manual_seed(int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()))


class Run:
    """One rank's part of a pretraining run."""

    def __init__(self, job: Job, plan: Plan, stream: TextIO | None, rank: int = 0, ranks: int = 1) -> None:
        self.job, self.plan, self.recipe = job, plan, job.recipe
        self.stream = stream if rank == 0 else None
        self.batches = BatchPlan.deal(job.recipe.rows_per_step, job.recipe.micro_rows, ranks)
        self.rank, self.ranks = rank, ranks
        self.num_steps = plan.mixture.num_steps
        self.tokens_per_step = job.recipe.rows_per_step * job.recipe.context
        self.store = CheckpointStore(job.out / "checkpoints", job.recipe.keep_last, plan.identity)
        self.metrics = Metrics(job.out / "metrics.jsonl")
        self.precision, self.precision_line = resolve_precision(job.recipe.precision)
        self.attention: str = job.recipe.attention
        if self.attention == "auto":
            self.attention = pick_attention(pick_device(), self.precision, job.recipe.context, plan.config)

    def train(self, accepted: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """From the start or the last checkpoint to the end; writes the model and returns the result. `accepted` is called before the
        first step."""
        checkpoint = self.store.latest(self.say)
        self.start = checkpoint.metadata["step"] if checkpoint else 0
        engine = self.build_engine(checkpoint)
        accepted()
        self.clock = Clock(checkpoint.metadata if checkpoint else {})
        self.log = StepLog(checkpoint.metadata if checkpoint else {})
        if self.rank == 0:
            self.metrics.rewind(self.start)
        self.say(self.opening_line())
        with TrainingProgress(self.num_steps, self.start, self.stream) as progress:
            for step in range(self.start, self.num_steps):
                seed_dropout(self.job.seed, step, self.rank)
                batch = read_batch(self.plan.mixture, self.batches, step, self.rank)
                rate = learning_rate(self.recipe, step, self.num_steps)
                self.log.add(engine.step(batch, rate))
                self.after_step(engine, step + 1, rate, progress)
        return self.finish(engine)

    def build_engine(self, checkpoint: Checkpoint | None) -> Engine:
        """The decoder, seeded or from the checkpoint, inside its engine."""
        decoder = Decoder(self.plan.config, attention=self.attention, rope_factors=factors_of_length(self.plan.config, self.recipe.context))
        if checkpoint is None:
            initialise(decoder, torch.Generator().manual_seed(self.job.seed))
        else:
            load_weights(decoder, checkpoint)
        engine = self.wrap(decoder)
        if checkpoint is not None:
            engine.restore(checkpoint, self.start)
        return engine

    def wrap(self, decoder: Decoder) -> Engine:
        """Plain torch on one rank, DeepSpeed on more."""
        if self.ranks == 1:
            return PlainEngine(decoder, self.recipe, self.precision, pick_device())
        from training.zero import ZeroEngine

        return ZeroEngine(decoder, self.recipe, self.precision, self.batches, self.job.out)

    def after_step(self, engine: Engine, done: int, rate: float, progress: TrainingProgress) -> None:
        """Logs and writes a checkpoint where it is time to; a loss that is no number stops the run before it can be saved."""
        last = done == self.num_steps
        saves = last or done % self.recipe.checkpoint_every == 0
        logs = last or done % self.recipe.log_every == 0
        progress.advance(done)
        if saves or logs:
            self.log.settle(done, self.store.folder)
        if logs:
            row = self.row(done, rate)
            if self.rank == 0:
                self.metrics.append(row)
            progress.show(row)
        if saves:
            spent = {"seconds": self.clock.seconds, "cpu_seconds": engine.total(self.clock.cpu_seconds)}
            layout = {"precision": self.precision, "ranks": self.ranks, "zero_stage": self.recipe.zero_stage if self.ranks > 1 else 0}
            self.store.write(
                engine, done, {"losses": self.log.losses, "loss": self.log.last, **spent, **layout, **decoder_metadata(self.plan.config)}
            )

    def row(self, done: int, rate: float) -> dict[str, Any]:
        """One row of metrics.jsonl."""
        steps, seconds = self.clock.lap(done, self.start)
        return {
            "step": done,
            "phase": self.recipe.phase_of(done - 1).name,
            "tokens": done * self.tokens_per_step,
            "loss": self.log.take_mean(),
            "learning_rate": rate,
            "grad_norm": self.log.grad_norm,
            "tokens_per_s": steps * self.tokens_per_step / seconds,
            "seconds": self.clock.seconds,
        }

    def finish(self, engine: Engine) -> dict[str, Any]:
        """Writes the model folder and the result."""
        if self.start == self.num_steps:
            self.say("pretrain: every step was done already")
        model = self.job.out / "model"
        weights = engine.weights()
        if self.rank == 0:
            write_hf_folder(model, self.plan.config, weights, tokenizer=self.job.tokenizer)
        else:
            for _ in weights:
                pass
        tokens = self.num_steps * self.tokens_per_step
        result = {
            "steps": self.num_steps,
            "tokens": tokens,
            "loss": self.log.last,
            "parameters": count_parameters(self.plan.config),
            "tokens_per_s": tokens / self.clock.seconds,
            "seconds": self.clock.seconds,
            "cpu_seconds": engine.total(self.clock.cpu_seconds),
            "peak_rss_bytes": int(engine.total(peak_rss_bytes())),
            "resumed_from": self.start or None,
            "ranks": self.ranks,
            "precision": self.precision,
            "model": str(model),
        }
        if self.rank == 0:
            write_json(self.job.out / "result.json", result)
        return result

    def opening_line(self) -> str:
        """What is about to be trained, on what."""
        where = f"{self.ranks} ranks, ZeRO-{self.recipe.zero_stage}" if self.ranks > 1 else "one rank"
        begin = f"going on from step {self.start} of {self.num_steps}" if self.start else f"{self.num_steps} steps"
        numerics = self.precision_line or f"{self.precision} products"
        return (
            f"pretrain: {count_parameters(self.plan.config):,} parameters, {begin} of {self.tokens_per_step:,} tokens; "
            f"{where}, {torch.get_num_threads()} threads each, {numerics}, attention {self.attention}"
        )

    def say(self, line: str) -> None:
        if self.stream is not None:
            print(line, file=self.stream, flush=True)


class StepLog:
    """Losses since the last logged row. They stay on the device until a row or a checkpoint needs them."""

    def __init__(self, saved: dict[str, Any]) -> None:
        self.losses: list[float] = saved.get("losses", [])
        self.last: float = saved.get("loss", math.nan)
        self.grad_norm = math.nan
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []

    def add(self, result: StepResult) -> None:
        self.pending.append(result.loss)
        self.norms.append(result.grad_norm)

    def settle(self, done: int, folder: Path) -> None:
        """Reads what is pending, up to step `done`, and stops the run where a number is not finite."""
        if not self.pending:
            return
        losses, norms = torch.stack([torch.stack(self.pending), torch.stack(self.norms)]).tolist()
        first = done - len(losses) + 1
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise InputError(
                    f"pretrain: step {step}: the loss is {loss} and the gradient norm {norm}; stopped, the last checkpoint in {folder} "
                    "is kept. Lower [pretrain] learning_rate or clip, or lengthen warmup_steps, and start over"
                )
        self.losses += losses
        self.last, self.grad_norm = losses[-1], norms[-1]
        self.pending, self.norms = [], []

    def take_mean(self) -> float:
        """The mean loss since the last row."""
        mean = math.fsum(self.losses) / len(self.losses)
        self.losses = []
        return mean


class Clock:
    """Wall and CPU seconds of a run, those before its last resumption included. Nothing is decided by them."""

    def __init__(self, spent: dict[str, Any]) -> None:
        self.before, self.cpu_before = spent.get("seconds", 0.0), spent.get("cpu_seconds", 0.0)
        self.began = self.lap_began = time.perf_counter()
        self.cpu_began = time.process_time()
        self.lap_step: int | None = None

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.began

    @property
    def cpu_seconds(self) -> float:
        return self.cpu_before + time.process_time() - self.cpu_began

    def lap(self, done: int, start: int) -> tuple[int, float]:
        """Steps and seconds since the lap before, or since the run went on at step `start`."""
        now = time.perf_counter()
        steps, seconds = done - (start if self.lap_step is None else self.lap_step), now - self.lap_began
        self.lap_step, self.lap_began = done, now
        return steps, seconds
