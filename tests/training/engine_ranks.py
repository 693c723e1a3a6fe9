"""Twenty steps of a tiny decoder in every engine and layout, on ranks; what `test_engines.py` compares."""

# B rows, T tokens.

import dataclasses
import gc
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data_pipeline.tokens.mixture import Row
from modeling.checkpoint import Checkpoint
from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.parallel.pieces import Pieces, parameter_pieces
from modeling.presets import preset
from training import replicated, zero
from training.batches import BatchPlan, read_batch
from training.checkpoint import CheckpointStore
from training.layout import build_parallel
from training.recipe import LayoutRecipe, PretrainRecipe
from training.replicated import ReplicatedEngine
from training.state import WEIGHT, load_weights, restore, state_pieces
from training.world import World
from training.zero import ZeroEngine

STEPS = 20
CONTEXT = 24
RECIPE = PretrainRecipe(
    phases=({"name": "one", "steps": 1000, "weights": {"web": 1.0}},),  # type: ignore[arg-type]
    context=CONTEXT,
    rows_per_step=8,
    micro_rows=2,
    learning_rate=1e-3,
    warmup_steps=2,
    clip=0.5,
    threads=1,
)
CONFIG = dataclasses.replace(preset("tiny"), window_keys=9, max_positions=64)


class Rows:
    """Packed rows of three documents of seeded lengths: what a mixture gives, without a corpus."""

    def row(self, step: int, index: int) -> Row:
        chance = np.random.default_rng([step, index])
        ids = chance.integers(4, CONFIG.vocab_size, CONTEXT + 1)
        ids[1:] = np.where(chance.random(CONTEXT) < 0.7, (ids[:-1] * 5 + 3) % CONFIG.vocab_size, ids[1:])  # something to learn
        ends = np.sort(chance.choice(np.arange(2, CONTEXT - 1), 2, replace=False))
        documents = np.searchsorted(ends, np.arange(CONTEXT + 1), side="right")
        starts = np.concatenate([[0], ends])[documents]
        targets = np.where(documents[1:] == documents[:-1], ids[1:], -100)
        return Row(ids, (np.arange(CONTEXT + 1) - starts)[:-1], documents[:-1], targets, "web")


def build(layout: dict[str, Any], ranks: int, precision: str = "float32", checkpoint: Checkpoint | None = None, **settings: Any) -> Any:
    """An engine on freshly seeded weights or a checkpoint's, and the plan of its batches."""
    forget_deepspeed()
    pass_over_third_parties()
    if dist.is_initialized():  # as a launcher sets it; in the tests' own process it would reach every program they start
        os.environ["LOCAL_RANK"] = str(dist.get_rank())
    recipe = RECIPE.model_copy(update=settings)
    laid = LayoutRecipe(**layout)
    batches = BatchPlan.deal(recipe.rows_per_step, recipe.micro_rows, laid.data_ranks(ranks))
    decoder = Decoder(CONFIG, parallel=build_parallel(laid, ranks))
    if checkpoint is None:
        initialise(decoder, torch.Generator().manual_seed(7))
    else:
        load_weights(decoder, checkpoint)
    device = torch.device("cpu")
    if laid.zero_stage == 0 or ranks == 1 or recipe.deterministic:
        return ReplicatedEngine(decoder, recipe, precision, device, laid), batches
    return ZeroEngine(decoder, recipe, laid, precision, device, batches), batches


def train(engine: Any, batches: BatchPlan, steps: range, rate: float = RECIPE.learning_rate) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    found = []
    for step in steps:
        result = engine.step(read_batch(Rows(), batches, step, engine.mesh.coordinate("data")), rate)
        found.append((float(result.loss), float(result.grad_norm)))
    return found


def run(layout: dict[str, Any], precision: str = "float32", steps: int = STEPS, **settings: Any) -> list[tuple[float, float]]:
    """One engine's losses and norms, on this world's ranks."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    engine, batches = build(layout, ranks, precision, **settings)
    found = train(engine, batches, range(steps))
    del engine
    forget_deepspeed()
    return found


def run_to_weights(layout: dict[str, Any], precision: str, settings: dict[str, Any]) -> tuple[list[tuple[float, float]], str]:
    """Eight steps' losses and norms, and a digest of all weights."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine, batches = build(layout, ranks, precision, **settings)
    found = train(engine, batches, range(8))
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for one in engine.fragments():
        if one.kind == WEIGHT:
            digest.update(one.name.encode() + one.values.numpy().tobytes())
    return found, digest.hexdigest()


def save_and_go_on(layout: dict[str, Any], precision: str, folder: str, steps: int, more: int) -> list[tuple[float, float]]:
    """Trains, writes a checkpoint, and returns what the same engine goes on with while it is written."""
    world = current_world()
    engine, batches = build(layout, world.ranks, precision)
    train(engine, batches, range(steps))
    store = CheckpointStore(folder, 2, {})
    store.begin(steps, state_pieces(engine.fragments(), engine.pieces), {"updates": steps}, world)
    found = train(engine, batches, range(steps, steps + more))
    store.finish()
    world.meet()
    return found


def go_on(
    layout: dict[str, Any], precision: str, folder: str, steps: int, more: int, forget: str | None = None
) -> list[tuple[float, float]]:
    """What an engine of another layout goes on with from that checkpoint."""
    world = current_world()
    checkpoint = CheckpointStore(folder, 2, {}).latest(lambda line: None, world)
    assert checkpoint is not None
    engine, batches = build(layout, world.ranks, precision, checkpoint=checkpoint)
    fragments = [one for one in engine.fragments() if forget != "moments" or one.kind == WEIGHT]
    restore(fragments, engine.pieces, checkpoint)
    engine.resume(0 if forget == "updates" else checkpoint.metadata["updates"])
    return train(engine, batches, range(steps, steps + more))


def current_world() -> World:
    torch.set_num_threads(1)
    return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()


def run_faulty(layout: dict[str, Any], fault: str) -> list[tuple[float, float]]:
    """A run with something wrong in it, by name."""
    if fault == "unmarked":
        with forgotten_marks():
            return run(layout)
    engine, batches = build(layout, dist.get_world_size())
    weight = engine.named["layers.0.attention.qkv.weight"]
    weight.register_hook(lambda gradient: gradient * 2)
    return train(engine, batches, range(STEPS))


@contextmanager
def forgotten_marks() -> Iterator[None]:
    """No parameter is known as split over "tensor"."""

    def mark_nothing(module: torch.nn.Module) -> dict[str, Pieces]:
        return {name: dataclasses.replace(one, shared=True) for name, one in parameter_pieces(module).items()}

    kept = replicated.mark_split_parameters
    replicated.mark_split_parameters = zero.mark_split_parameters = mark_nothing
    try:
        yield
    finally:
        replicated.mark_split_parameters = zero.mark_split_parameters = kept


def skip_one(layout: dict[str, Any], precision: str) -> tuple[Any, Any]:
    """Steps 0, 1, 3 and 4 twice: with step 2's update refused between them, and without it."""

    def state(engine: Any) -> list[bytes]:
        return [one.values.numpy().tobytes() for one in engine.fragments()]

    engine, batches = build(layout, dist.get_world_size(), precision)
    train(engine, batches, range(2))
    refused = engine.step(read_batch(Rows(), batches, 2, engine.mesh.coordinate("data")), 1e-3, lambda loss, norm: loss != loss or norm < 0)
    assert not refused.applied
    left_out = (train(engine, batches, range(3, 5)), state(engine))
    engine, batches = build(layout, dist.get_world_size(), precision)
    train(engine, batches, range(2))
    return left_out, (train(engine, batches, range(3, 5)), state(engine))


def facts_of_gate(layout: dict[str, Any], precision: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Loss and norm that an update is judged by, and those that its step reports, from the first step on."""
    engine, batches = build(layout, dist.get_world_size(), precision)
    found = []
    for step in range(3):
        seen: list[tuple[float, float]] = []

        def accept(loss: float, norm: float, seen: list[tuple[float, float]] = seen) -> bool:
            seen.append((loss, norm))
            return True

        result = engine.step(read_batch(Rows(), batches, step, engine.mesh.coordinate("data")), 1e-3, accept)
        assert result.applied
        (asked,) = seen  # once per step
        found.append((asked, (float(result.loss), float(result.grad_norm))))
    return found


def pass_over_third_parties() -> None:
    """Warnings that DeepSpeed causes and we cannot mend; all others stay errors."""
    for words in (
        ".*torch.jit.script_method.*",  # torch's own compiler, imported by DeepSpeed's Muon
        ".*all_gather_into_tensor.*",  # DeepSpeed calls torch's collectives by the names they had before 2.13
        ".*reduce_scatter_tensor.*",
    ):
        warnings.filterwarnings("ignore", words)


def run_with(layout: dict[str, Any], precision: str, settings: dict[str, Any]) -> list[tuple[float, float]]:
    """`run` with its settings in a table."""
    return run(layout, precision, **settings)


def forget_deepspeed() -> None:
    """DeepSpeed keeps the last engine's groups for the process; the next engine must not see them."""
    gc.collect()
    try:
        from deepspeed.utils import groups
    except ImportError:
        return
    groups.mpu = None
