"""The plan's bytes against a process's: `python -m benchmarks.plan_memory [--layers 10] [--out FILE]`.

A decoder whose state is more than 2 GiB takes two steps on one rank and on two, in every ZeRO stage; the peak of each rank's resident
memory above what it had before the decoder was built is held against the plan's total. Writes benchmarks/results/plan_memory.json.
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from modeling.config import DecoderConfig
from modeling.counts import count_parameters
from training.plan.memory import memory_of
from training.plan.shape import Shape

RESULTS = Path(__file__).parent / "results"
LOSS_TOKENS = 512  # modeling.loss.CHUNK_TOKENS on a CPU
# Shorter rows in bfloat16: many CPUs are slow in it.
CASES: list[dict[str, Any]] = [
    {"ranks": 1, "zero_stage": 0, "precision": "float32"},
    {"ranks": 1, "zero_stage": 0, "precision": "bfloat16-master", "context": 32},
    {"ranks": 2, "zero_stage": 0, "precision": "float32"},
    {"ranks": 2, "zero_stage": 1, "precision": "float32"},
    {"ranks": 2, "zero_stage": 2, "precision": "float32"},
    {"ranks": 2, "zero_stage": 3, "precision": "float32"},
    {"ranks": 2, "zero_stage": 1, "precision": "bfloat16-master", "context": 32},
    {"ranks": 2, "zero_stage": 2, "precision": "bfloat16-master", "context": 32},
]


def config_of(layers: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=16_384,
        hidden_size=1024,
        intermediate_size=2816,
        num_layers=layers,
        num_heads=16,
        num_kv_heads=16,
        max_positions=1024,
        tied=True,
    )


class Peak:
    """The highest resident memory of this process, looked at every few milliseconds."""

    def __init__(self) -> None:
        import psutil

        self.process = psutil.Process()
        self.highest = self.base = self.process.memory_info().rss
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        while True:
            self.highest = max(self.highest, self.process.memory_info().rss)
            time.sleep(0.005)


def work(rank: int, case: dict[str, Any], layers: int, context: int, folder: Path, pipe: Any) -> None:
    """One rank: builds the engine, takes two steps, tells its peaks."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case["ranks"]), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    warnings.simplefilter("ignore")
    try:
        import torch
        import torch.distributed as dist

        from modeling.decoder import Decoder
        from modeling.initialise import initialise
        from training.batches import BatchPlan, MicroBatch
        from training.layout import build_parallel
        from training.recipe import LayoutRecipe, PretrainRecipe
        from training.replicated import ReplicatedEngine
        from training.zero import ZeroEngine, load_deepspeed

        torch.set_num_threads(1)
        if case["ranks"] > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=case["ranks"])
            load_deepspeed()
        layout = LayoutRecipe(zero_stage=case["zero_stage"])  # type: ignore[arg-type]
        recipe = PretrainRecipe(precision=case["precision"])  # type: ignore[arg-type]
        peak = Peak()
        decoder = initialise(Decoder(config_of(layers), parallel=build_parallel(layout, case["ranks"])), torch.Generator().manual_seed(0))
        device = torch.device("cpu")
        if case["ranks"] == 1 or case["zero_stage"] == 0:
            engine: Any = ReplicatedEngine(decoder, recipe, case["precision"], device, layout)
        else:
            engine = ZeroEngine(decoder, recipe, layout, case["precision"], device, BatchPlan(case["ranks"], case["ranks"], 1, 1))
        built, peak.highest = peak.highest, peak.process.memory_info().rss
        ids_BT = torch.randint(0, 16_384, (1, context + 1))
        micro = MicroBatch(ids_BT[:, :-1], torch.arange(context)[None], torch.zeros(1, context, dtype=torch.long), ids_BT[:, 1:])
        for _ in range(2):  # moments are there from the first on
            engine.step([micro], 1e-4)
        pipe.send((peak.highest - peak.base, built - peak.base))
    except BaseException:
        pipe.send(traceback.format_exc())


def measure(case: dict[str, Any], layers: int, context: int) -> dict[str, Any]:
    """Peaks of the rank that has most, and the plan's."""
    context = case.get("context", context)
    shape = Shape(
        config=config_of(layers),
        context=context,
        rows_per_step=case["ranks"],
        ranks=case["ranks"],
        zero_stage=case["zero_stage"],
        precision=case["precision"],
    )
    planned = memory_of(shape, LOSS_TOKENS)
    maker = multiprocessing.get_context("spawn")
    told = []
    with tempfile.TemporaryDirectory(prefix="phial-memory-") as folder:
        pipes = []
        for rank in range(case["ranks"]):
            ours, theirs = maker.Pipe()
            maker.Process(target=work, args=(rank, case, layers, context, Path(folder), theirs), daemon=True).start()
            pipes.append(ours)
        told = [pipe.recv() for pipe in pipes]
    for words in told:
        if isinstance(words, str):
            raise SystemExit(f"plan_memory: {case}: {words}")
    steps, built = (max(values) for values in zip(*told, strict=True))
    return {
        **case,
        "context": context,
        "planned": planned.by_kind(),
        "peak_of_steps": steps,
        "peak_while_built": built,
        "ratio": round(planned.total / steps, 4),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--only", type=int, nargs="+", default=range(len(CASES)), metavar="N", help="cases by number, from 0")
    parser.add_argument("--out", type=Path, default=RESULTS / "plan_memory.json")
    options = parser.parse_args(arguments)
    # Freed memory goes back to the system at once, so that the resident size is what is held.
    os.environ |= {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    record: dict[str, Any] = {**provenance("torch", "deepspeed"), "parameters": count_parameters(config_of(options.layers)), "cases": []}
    for case in (CASES[number] for number in options.only):
        found = measure(case, options.layers, options.context)
        record["cases"].append(found)
        print(f"plan_memory: {case}: planned {found['planned']['total'] / 2**30:.2f} GiB, {found['ratio']:.3f} of the peak", flush=True)
    write_json(options.out, record)


if __name__ == "__main__":
    main()
