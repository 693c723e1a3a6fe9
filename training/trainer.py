"""Pretraining: the loop, short, and what it hands back."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from data_pipeline.errors import InputError
from data_pipeline.provenance import peak_rss_bytes, provenance
from data_pipeline.storage import read_json, write_json
from modeling import load_decoder
from modeling.checkpoint import MANIFEST, Checkpoint, list_checkpoints
from modeling.config import DecoderConfig
from modeling.counts import count_parameters, flops_per_token
from modeling.decoder import Decoder
from modeling.hf_weights import write_hf_folder
from modeling.initialise import initialise
from modeling.loss import CHUNK_TOKENS, CHUNK_TOKENS_ELSEWHERE
from modeling.model_checkpoint import decoder_metadata, load_decoder_checkpoint
from modeling.parallel.weights import fill
from modeling.rope import factors_of_length
from modeling.whole_files import store_of
from training.batches import BatchPlan, read_batch
from training.board import Board
from training.checkpoint import step_of
from training.engine import Engine
from training.evaluating import validation_losses
from training.events import record
from training.hardware import (
    check_gpus,
    local_rank,
    memory_in_use,
    peak_flops,
    pick_attention,
    pick_device,
    resolve_precision,
    this_gpu,
    threads_of,
)
from training.job import Job, Plan, make_plan
from training.layout import build_parallel
from training.metrics import Metrics
from training.page import write_page
from training.plan.run import plan_run, shape_of
from training.progress import TrainingProgress
from training.questions import question_scores
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.resume import find_start, history_now, open_store
from training.run_lock import run_lock
from training.schedule import learning_rate
from training.spikes import SpikeWatch, contains
from training.state import WEIGHT, load_weights, restore, state_pieces
from training.step_log import Clock, PartClock, StepLog
from training.world import World


def pretrain(
    recipe: PretrainRecipe,
    model: ModelRecipe,
    *,
    tokens: str | Path,
    tokenizer: str | Path,
    out: str | Path,
    layout: LayoutRecipe | None = None,
    seed: int = 0,
    ranks: int = 1,
    stream: TextIO | None = None,
    accepted: Callable[[], None] = lambda: None,
    edit_mixture: bool = False,
) -> dict[str, Any]:
    """Trains a decoder on token shards; goes on from the last complete checkpoint in `out` if there is one.

    `tokens` holds one folder of shards per source. `out` gets checkpoints/, metrics.jsonl, result.json and model/ (Hugging Face's layout
    with the tokenizer's files). Progress goes to `stream`; `accepted` is called when nothing was refused, before the first step.
    `edit_mixture` lets other phases than the checkpoint's take over.
    Returns steps, tokens, loss, parameters, tokens_per_s, seconds, cpu_seconds, peak_rss_bytes, resumed_from, ranks, precision and
    model; seconds count all runs that led here.
    """
    where = {"tokens": Path(tokens), "tokenizer": Path(tokenizer), "out": Path(out)}
    job = Job(recipe=recipe, model=model, seed=seed, layout=layout or LayoutRecipe(), edit_mixture=edit_mixture, **where)
    plan = make_plan(job, ranks)  # every mistake is told before a rank is started
    check_gpus(ranks)
    with run_lock(job.out, lambda line: stream and print(f"pretrain: {line}", file=stream)):
        if ranks == 1:
            return train_here(job, plan, stream, accepted)
        from training.launch import launch

        find_start(job, plan, open_store(job, plan))
        accepted()
        return launch(job, ranks, stream)


def train_here(job: Job, plan: Plan, stream: TextIO | None, accepted: Callable[[], None]) -> dict[str, Any]:
    """The whole run as this process's one rank."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(job.recipe, 1))
    try:
        while True:
            try:
                return Run(job, plan, stream).train(accepted)
            except Rewound:
                continue
    finally:
        torch.set_num_threads(before)


class Rewound(Exception):
    """The run has gone back to a checkpoint: whoever runs it starts it again."""

    exit_code = 75  # what a rank ends with: a temporary failure, in sysexits.h's words


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Dropout masks depend on the step and the data rank alone: ranks that see other rows draw others, a resumed run the same."""
    torch.manual_seed(int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()))


class Run:
    """One rank's part of a pretraining run."""

    def __init__(
        self,
        job: Job,
        plan: Plan,
        stream: TextIO | None,
        rank: int = 0,
        ranks: int = 1,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.job, self.plan, self.recipe = job, plan, job.recipe
        self.world = World(rank, ranks)
        self.stream = stream if self.world.first else None
        self.on_step, self.done = on_step, -1
        self.tokens_per_step = job.recipe.rows_per_step * job.recipe.context
        self.store = open_store(job, plan, self.say)
        self.metrics = Metrics(job.out / "metrics.jsonl")
        self.precision, self.precision_line = resolve_precision(job.recipe.precision)
        self.attention: str = job.recipe.attention
        if self.attention == "auto":
            self.attention = pick_attention(pick_device(), self.precision, job.recipe.context, plan.config)

    def train(self, accepted: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """From the start or the last checkpoint to the end; writes the model and returns the result. `accepted` is called before the
        first step."""
        try:
            return self.train_to_end(accepted)
        except torch.OutOfMemoryError as error:
            raise InputError(self.full_memory_line()) from error

    def full_memory_line(self) -> str:
        """What to do where a device is full; a rank that is restarted would only fill it again."""
        planned = self.planned()["memory"]["total"] / 2**30
        there = (
            f" of {torch.cuda.get_device_properties(pick_device(local_rank())).total_memory / 2**30:.1f}"
            if torch.cuda.is_available()
            else ""
        )
        return (
            f"pretrain: rank {self.world.rank}'s device is full; the plan is {planned:.1f} GiB{there}. Lower [pretrain] micro_rows "
            f'({self.batches.micro} now), set recompute = "selective" or "full", or use more ranks with [layout] zero_stage or tensor. '
            "Other programs may hold memory too"
        )

    def train_to_end(self, accepted: Callable[[], None]) -> dict[str, Any]:
        """`train`, but for what a full device leads to."""
        self.checkpoint, self.plan = find_start(self.job, self.plan, self.store, self.world)
        self.num_steps = self.plan.mixture.num_steps
        saved = self.checkpoint.metadata if self.checkpoint else {}
        self.parts = PartClock()
        self.start, self.updates = saved.get("step", 0), saved.get("updates", saved.get("step", 0))
        self.clock, self.log = Clock(saved, keeps_cpu=self.world.first), StepLog(saved)
        self.spikes = SpikeWatch(self.recipe.spike_sigmas, self.recipe.spike_window, saved.get("spikes"))
        self.skipped = self.world.agree(lambda: read_skipped(self.job.out, saved))
        self.record_start(saved)
        self.board = Board(self.job.out / "tensorboard" if self.recipe.tensorboard and self.world.first else None)
        if self.world.first:
            self.metrics.rewind(self.start)
            write_json(self.job.out / "run.json", self.facts())
            write_json(self.job.out / "plan.json", self.planned())
        if self.start == self.num_steps:
            accepted()
            self.say("pretrain: every step was done already")
            return self.finish()
        self.engine = self.build_engine()
        accepted()
        self.say(self.opening_line())
        data_index = self.engine.mesh.coordinate("data")
        with TrainingProgress(self.num_steps, self.start, self.stream) as progress:
            for step in range(self.start, self.num_steps):
                rate = learning_rate(self.recipe, step, self.num_steps)
                if not contains(self.skipped, step):
                    self.step(step, rate, data_index)
                self.after_step(step + 1, rate, progress)
        return self.finish()

    def step(self, step: int, rate: float, data_index: int) -> None:
        """One update, or one that is left out since it would be a spike."""
        # Ranks that work on the same rows draw the same dropout, ranks that see others another.
        seed_dropout(self.job.seed, step, data_index)
        with self.parts("data"):
            batch = read_batch(self.plan.mixture, self.batches, step, data_index)
        with self.parts("step"):
            result = self.engine.step(batch, rate, self.spikes.accept if self.spikes.sigmas else None)
        self.updates += result.applied
        self.log.add(step + 1, result)
        if not result.applied:
            loss, norm = float(result.loss), float(result.grad_norm)
            self.say(f"pretrain: step {step + 1}: loss {loss:.4g} and gradient norm {norm:.4g} are a spike; no update")
            self.record("spike", step + 1, loss=loss, grad_norm=norm)
            if self.spikes.in_a_row >= self.recipe.rewind_after:
                self.rewind(step + 1)

    def rewind(self, done: int) -> None:
        """Goes back to the last checkpoint before the spikes; the steps from there to here are passed over without an update."""
        first = done - self.spikes.in_a_row
        if len(self.skipped) >= self.recipe.max_rewinds:
            raise InputError(
                f"pretrain: step {done}: {self.spikes.in_a_row} spikes in a row, after {len(self.skipped)} rewinds (max_rewinds = "
                f"{self.recipe.max_rewinds}); stopped, the last checkpoint in {self.store.folder} is kept. Run on with a higher [pretrain] "
                "max_rewinds or spike_sigmas, or begin another run with a lower learning_rate"
            )
        self.store.finish()
        self.world.agree(lambda: self.store.discard_after(first))
        back = self.world.agree(lambda: max([step_of(path) for path in list_checkpoints(self.store.folder)], default=0))
        if self.world.first:
            write_json(self.job.out / SKIPPED, [*self.skipped, (back, done)])
            self.record("rewound", done, to=back)
        self.say(f"pretrain: step {done}: {self.spikes.in_a_row} spikes in a row; back to step {back}, past steps {back + 1} to {done}")
        self.world.meet()
        raise Rewound

    def record_start(self, saved: dict[str, Any]) -> None:
        """Whether the run begins or goes on, and what has changed since."""
        now = {"ranks": self.world.ranks, "layout": self.job.layout.model_dump(mode="json"), "precision": self.precision}
        self.record("resumed" if saved else "started", self.start, **now)
        if saved and any(saved.get(name) != value for name, value in now.items()):
            self.record("layout", self.start, before={name: saved.get(name) for name in now}, now=now)
        history = history_now(self.job, self.plan)
        if saved and len(history) > 1 and history[-1]["from_step"] == self.start:
            self.record("mixture", self.start, phases=history[-1]["phases"])
            self.say(f"pretrain: from step {self.start} on the mixture is another one, as --edit-mixture says")

    def facts(self) -> dict[str, Any]:
        """Every resolved value of this attempt: settings, layout, what the machine has decided."""
        decided = {"precision": self.precision, "attention": self.attention, "ranks": self.world.ranks, "device": str(pick_device())}
        counted = {"parameters": count_parameters(self.plan.config), "steps": self.num_steps, "tokens_per_step": self.tokens_per_step}
        return {"job": self.job.to_json(), "decoder": self.plan.config.to_dict(), **decided, **counted, **provenance("torch", "deepspeed")}

    def planned(self) -> dict[str, Any]:
        """What the plan says of this attempt."""
        shape = shape_of(self.plan.config, self.recipe, self.job.layout, self.world.ranks, self.precision)
        loss_tokens = CHUNK_TOKENS.get(pick_device().type, CHUNK_TOKENS_ELSEWHERE)
        return plan_run(shape, loss_tokens, this_gpu(), int(os.environ.get("LOCAL_WORLD_SIZE", self.world.ranks)))

    def record(self, kind: str, step: int, **facts: Any) -> None:
        if self.world.first:
            record(self.job.out, kind, step, **facts)

    @property
    def batches(self) -> BatchPlan:
        return self.plan.batches

    def build_engine(self) -> Engine:
        """The decoder, seeded or from the checkpoint, inside its engine."""
        with torch.device("meta"):  # every weight is written below: torch's own random start would double the time to the first step
            decoder = Decoder(
                self.plan.config,
                attention=self.attention,
                rope_factors=factors_of_length(self.plan.config, self.recipe.context),
                parallel=build_parallel(self.job.layout, self.world.ranks),
            )
        decoder.to_empty(device="cpu")
        if self.checkpoint is None and self.recipe.initial:
            fill(decoder, initial_weights(self.recipe.initial, self.plan.config))
        elif self.checkpoint is None:
            initialise(decoder, torch.Generator().manual_seed(self.job.seed))
        else:
            load_weights(decoder, self.checkpoint)
        engine = self.wrap(decoder)
        if self.checkpoint is not None:
            restore(engine.fragments(), engine.pieces, self.checkpoint)
            engine.resume(self.updates)
        return engine

    def wrap(self, decoder: Decoder) -> Engine:
        """DeepSpeed where several ranks divide states among them, plain torch everywhere else."""
        job, device = self.job, pick_device(local_rank())
        if self.world.ranks == 1 or job.layout.zero_stage == 0 or job.recipe.deterministic:
            from training.replicated import ReplicatedEngine

            return ReplicatedEngine(decoder, job.recipe, self.precision, device, job.layout)
        from training.zero import ZeroEngine

        return ZeroEngine(decoder, job.recipe, job.layout, self.precision, device, self.batches, job.out)

    def after_step(self, done: int, rate: float, progress: TrainingProgress) -> None:
        """Logs and writes a checkpoint where it is time to; a loss that is no number stops the run before it can be saved."""
        last = done == self.num_steps
        saves = last or done % self.recipe.checkpoint_every == 0
        logs = last or done % self.recipe.log_every == 0
        evaluates = last or (self.recipe.evaluate_every > 0 and done % self.recipe.evaluate_every == 0)
        progress.advance(done)
        self.done = done
        self.beat()
        self.store.check()
        self.record_written()
        if saves or logs:
            self.log.settle(self.store.folder)
        if evaluates and (self.recipe.validation or self.recipe.benchmarks):
            with self.parts("evaluation"):
                self.evaluate(done)
        if logs:
            row = self.row(done, rate)
            if self.world.first:
                self.metrics.append(row)
                self.board.add(row)
            progress.show(row)
        if saves:
            with self.parts("checkpoint"):
                self.save(done)
            if self.world.first:
                write_page(self.job.out)

    def beat(self) -> None:
        """Says that this rank moves: after every step, and while something between steps takes long."""
        self.on_step(self.done)

    def record_written(self) -> None:
        """What checkpoints that are complete by now have cost."""
        for written in self.store.take_written():
            self.record("checkpoint", **dataclasses.asdict(written))

    def save(self, done: int) -> None:
        """Copies the state after step `done` to host memory; it is written while training goes on."""
        spent = {"seconds": self.clock.seconds, "cpu_seconds": self.world.total(self.clock.cpu_seconds)}
        layout = {"precision": self.precision, "ranks": self.world.ranks, "layout": self.job.layout.model_dump(mode="json")}
        told = {"updates": self.updates, "losses": self.log.losses, "loss": self.log.last, "skipped": self.skipped}
        told |= {"spikes": self.spikes.state(), "mixture": history_now(self.job, self.plan)}
        told |= {"row_counts": self.plan.mixture.row_counts}
        metadata = {**told, **spent, **layout, **decoder_metadata(self.plan.config)}
        self.store.begin(done, state_pieces(self.engine.fragments(), self.engine.pieces), metadata, self.world, self.beat)

    def evaluate(self, done: int) -> None:
        """The loss of held-out rows, and the answers to questions."""
        losses = validation_losses(self.job, self.engine, self.batches, self.world, self.beat)
        found = {f"validation/{source}": loss for source, loss in losses.items()}
        if self.recipe.benchmarks:
            scores = question_scores(self.job, self.engine, self.world, self.beat)
            found |= {f"questions/{name}": value for name, value in scores.items()}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        self.say(f"pretrain: step {done}: {shown}")
        self.record("evaluated", done, **found)

    def row(self, done: int, rate: float) -> dict[str, Any]:
        """One row of metrics.jsonl."""
        steps, seconds = self.clock.lap(done, self.start)
        speed = steps * self.tokens_per_step / seconds
        return {
            "step": done,
            "phase": self.recipe.phase_of(done - 1).name,
            "tokens": done * self.tokens_per_step,
            "loss": self.log.take_mean(),
            "learning_rate": rate,
            "grad_norm": self.log.grad_norm,
            "tokens_per_s": speed,
            "seconds": self.clock.seconds,
            **self.utilisation(speed),
            "memory_bytes": memory_in_use(),
            "left_out": done - self.updates,
            "rows_read": self.plan.mixture.rows_read(done),
            "seconds_by_part": self.parts.take(),
        }

    def utilisation(self, tokens_per_s: float) -> dict[str, float | None]:
        """Model FLOPs over the devices' peak, attention counted causally and with all pairs; null where the peak is not known."""
        peak, config, context = peak_flops(self.recipe.peak_flops), self.plan.config, self.recipe.context
        if peak is None:
            return {"mfu_causal": None, "mfu_full": None}
        share = tokens_per_s / (peak * self.world.ranks)
        return {
            "mfu_causal": share * flops_per_token(config, context),
            "mfu_full": share * flops_per_token(config, context, "full"),
        }

    def finish(self) -> dict[str, Any]:
        """Writes the model folder, from the last checkpoint, and the result."""
        self.store.finish(self.beat)
        self.record_written()
        model = self.job.out / "model"

        def write_model(advance: Callable[[], None]) -> None:
            weights = whole_weights(Checkpoint(self.store.place(self.num_steps)), advance)
            write_hf_folder(model, self.plan.config, weights, tokenizer=self.job.tokenizer)

        self.world.attend(write_model, self.beat)
        tokens = self.num_steps * self.tokens_per_step
        result = {
            "steps": self.num_steps,
            "tokens": tokens,
            "loss": self.log.last,
            "parameters": count_parameters(self.plan.config),
            "tokens_per_s": tokens / self.clock.seconds,
            "seconds": self.clock.seconds,
            "cpu_seconds": self.world.total(self.clock.cpu_seconds),
            "peak_rss_bytes": int(self.world.total(peak_rss_bytes())),
            "resumed_from": self.start or None,
            "ranks": self.world.ranks,
            "precision": self.precision,
            "model": str(model),
        }
        if self.world.first:
            write_json(self.job.out / "result.json", result)
            self.record("finished", self.num_steps, loss=self.log.last)
            write_page(self.job.out)
            self.board.close()
        return result

    def opening_line(self) -> str:
        """What is about to be trained, on what."""
        begin = f"going on from step {self.start} of {self.num_steps}" if self.start else f"{self.num_steps} steps"
        numerics = self.precision_line or f"{self.precision} products"
        return (
            f"pretrain: {count_parameters(self.plan.config):,} parameters, {begin} of {self.tokens_per_step:,} tokens; "
            f"{describe_layout(self.job.layout, self.world.ranks)}, {torch.get_num_threads()} threads each, {numerics}, "
            f"attention {self.attention}"
        )

    def say(self, line: str) -> None:
        if self.stream is not None:
            print(line, file=self.stream, flush=True)


SKIPPED = "skipped.json"  # ranges of steps that rewinds pass over, in the run's folder


def read_skipped(out: Path, saved: dict[str, Any]) -> list[tuple[int, int]]:
    """Ranges of steps that are passed over, one for each rewind, though they overlap: those of the run's folder and of its checkpoint."""
    here = read_json(out / SKIPPED) if (out / SKIPPED).exists() else []
    return sorted({(begin, end) for begin, end in [*here, *saved.get("skipped", [])]})


def initial_weights(source: str, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
    """The weights of a Hugging Face folder or a checkpoint in float32; what does not fit the decoder is refused by name."""
    is_checkpoint = store_of(source)[0].exists(f"{store_of(source)[1]}/{MANIFEST}")
    loaded = load_decoder_checkpoint(source, torch.float32) if is_checkpoint else load_decoder(source, dtype=torch.float32)
    for name in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "vocab_size", "tied"):
        if getattr(loaded.config, name) != getattr(config, name):
            raise InputError(
                f"[pretrain] initial = {source!r} has {name} = {getattr(loaded.config, name)}, [model] has {getattr(config, name)}"
            )
    yield from ((name, parameter.detach()) for name, parameter in loaded.named_parameters())


def whole_weights(checkpoint: Checkpoint, advance: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    """A checkpoint's weights by parameter name, one at a time; `advance` is called for each."""
    prefix = f"{WEIGHT}/"
    for name in checkpoint.names:
        if name.startswith(prefix):
            yield name.removeprefix(prefix), checkpoint.read(name)
            advance()


def describe_layout(layout: LayoutRecipe, ranks: int) -> str:
    """How the ranks stand, in words."""
    if ranks == 1:
        return "one rank"
    axes = {"data": layout.data_ranks(ranks), "context": layout.context, "tensor": layout.tensor}
    shown = " x ".join(f"{name} {length}" for name, length in axes.items() if length > 1)
    return f"{ranks} ranks ({shown}), ZeRO-{layout.zero_stage}"
