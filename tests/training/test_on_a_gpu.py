"""Engines and trainer on a GPU: the numbers of one rank on a CPU, a resumed run, the plan's bytes. One GPU is enough."""

import io
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from data_pipeline.storage import read_json
from modeling import load_decoder
from modeling.decoder import Decoder
from modeling.initialise import initialise
from tests.compiler_warnings import COMPILER_WARNINGS
from tests.training import engine_ranks
from training.batches import BatchPlan
from training.hardware import pick_attention
from training.layout import build_parallel
from training.metrics import read_metrics
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.trainer import pretrain

STEPS = 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Loss, absolute; norm, relative. In float32 other kernels sum in another order.
BOUNDS = {"float32": (2e-5, 2e-4), "bfloat16-master": (3e-3, 2e-2)}
LAYOUTS = ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (1, "cpu"), (3, "cpu"))  # ZeRO stage, where optimizer states lie
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: needs a CUDA device")


def train_one(rank: int, meeting: str, device: str, answers: str) -> None:
    """Every stage and precision of one rank on the device, in one process; what each gave goes into a file."""
    os.environ["LOCAL_RANK"] = "0"
    engine_ranks.pass_over_third_parties()
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    found = {}
    for precision in BOUNDS:
        for stage, offload in LAYOUTS:
            layout = LayoutRecipe(zero_stage=stage, offload=offload)  # type: ignore[arg-type]
            found[f"{precision}-{stage}-{offload}"] = series(layout, precision, torch.device(device))
    Path(answers).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def series(layout: LayoutRecipe, precision: str, device: torch.device) -> list[tuple[float, float]]:
    """Losses and norms; ZeRO also where there is nobody to divide with."""
    from training.replicated import ReplicatedEngine
    from training.zero import ZeroEngine

    engine_ranks.forget_deepspeed()
    recipe = engine_ranks.RECIPE.model_copy(update={"micro_rows": 4})
    batches = BatchPlan.deal(recipe.rows_per_step, recipe.micro_rows, 1)
    attention = pick_attention(device, precision, recipe.context, engine_ranks.CONFIG)
    decoder = Decoder(engine_ranks.CONFIG, attention=attention, parallel=build_parallel(layout, 1))
    initialise(decoder, torch.Generator().manual_seed(7))
    if layout.zero_stage == 0:
        engine = ReplicatedEngine(decoder, recipe, precision, device, layout)
    else:
        engine = ZeroEngine(decoder, recipe, layout, precision, device, batches)
    return engine_ranks.train(engine, batches, range(STEPS))


@pytest.fixture(scope="module")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, float]]]:
    folder = tmp_path_factory.mktemp("device")
    spawn(train_one, (str(folder / "meet"), DEVICE, str(folder / "answers.json")), nprocs=1)
    return read_json(folder / "answers.json")


@pytest.fixture(scope="module")
def on_cpu() -> list[tuple[float, float]]:
    return engine_ranks.run({}, micro_rows=4, steps=STEPS)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("stage", "offload"), LAYOUTS)
@pytest.mark.parametrize("precision", list(BOUNDS))
def test_engines_give_what_a_cpu_gives(on_device, on_cpu, precision: str, stage: int, offload: str) -> None:
    found = on_device[f"{precision}-{stage}-{offload}"]
    loss = max(abs(a - b) for (a, _), (b, _) in zip(found, on_cpu, strict=True))
    norm = max(abs(a / b - 1) for (_, a), (_, b) in zip(found, on_cpu, strict=True))
    bounds = BOUNDS[precision]
    assert loss < bounds[0], f"loss differs by {loss:.2e}"
    assert norm < bounds[1], f"norm differs by {norm:.2e}"


class Stopped(Exception):
    """The run ends here."""


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings(*COMPILER_WARNINGS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_resumes(corpus: Path, tmp_path: Path, compiled: bool) -> None:
    """`precision = "auto"` is bfloat16 with masters; the second half of a run that was stopped is that of one that was not."""
    phases = ({"name": "one", "steps": 8, "weights": {"web": 1.0}},)
    recipe = PretrainRecipe(
        phases=phases,  # type: ignore[arg-type]
        context=64,
        rows_per_step=4,
        micro_rows=2,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=4,
        compile=compiled,
        learning_rate=1e-3,
    )
    where = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer"}
    said = io.StringIO()
    whole = pretrain(recipe, ModelRecipe(preset="tiny"), out=tmp_path / "whole", stream=said, **where)
    assert "bfloat16 weights and products, float32 master copies" in said.getvalue()
    assert "attention varlen" in said.getvalue()
    stopped_after(recipe, where, tmp_path / "stopped", 6)
    resumed = pretrain(recipe, ModelRecipe(preset="tiny"), out=tmp_path / "stopped", **where)
    assert resumed["resumed_from"] == 4
    losses = [[row["loss"] for row in read_metrics(tmp_path / out / "metrics.jsonl")] for out in ("whole", "stopped")]
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert load_decoder(Path(whole["model"])).config.num_layers == 2
    assert read_metrics(tmp_path / "whole" / "metrics.jsonl")[0]["memory_bytes"] < 2**30  # the GPU's, not the process's


def stopped_after(recipe: PretrainRecipe, where: dict[str, Path], out: Path, steps: int) -> None:
    from training.job import Job, make_plan
    from training.trainer import Run

    job = Job(recipe=recipe, model=ModelRecipe(preset="tiny"), layout=LayoutRecipe(), seed=0, out=out, **where)

    def on_step(done: int) -> None:
        if done == steps:
            raise Stopped

    run = Run(job, make_plan(job), None, on_step=on_step)
    with pytest.raises(Stopped):
        run.train()
    run.store.finish()
