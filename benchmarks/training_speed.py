"""Tokens per second of the one-rank trainer's step at the demo's size: precision, micro-batch and torch.compile side by side.

    python -m benchmarks.training_speed [--threads 2] [--steps 6] [--no-compile]

Rows are random tokens in packed documents of 20 to 200 tokens. The cases take turns, `--rounds` times, and the best step of each counts,
so that a busy machine disturbs all alike; tokens per CPU second are given beside. Writes benchmarks/results/training_speed.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from data_pipeline.provenance import provenance
from data_pipeline.tokens.mixture import IGNORED, Row
from modeling.counts import count_parameters
from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.presets import preset
from training.batches import BatchPlan, read_batch
from training.recipe import PretrainRecipe
from training.replicated import ReplicatedEngine

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, ROWS = 256, 16
OUT = ROOT / "benchmarks/results/training_speed.json"


class RandomRows:
    """Packed rows of random tokens, a pure function of step and index."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def row(self, step: int, index: int) -> Row:
        chance = np.random.default_rng([step, index])
        ids = chance.integers(0, self.vocab_size, CONTEXT + 1)
        starts = np.zeros(CONTEXT + 1, dtype=np.int64)
        ends = np.cumsum(chance.integers(20, 200, 16))
        starts[ends[ends <= CONTEXT]] = 1
        documents = np.cumsum(starts)
        positions = np.arange(CONTEXT + 1) - np.maximum.accumulate(np.where(starts == 1, np.arange(CONTEXT + 1), 0))
        targets = np.where(documents[1:] == documents[:-1], ids[1:], IGNORED)
        return Row(ids, positions[:-1], documents[:-1], targets, "random")


class Case:
    """One way to run the step, with an engine of its own."""

    def __init__(self, precision: str, micro_rows: int, compiled: bool) -> None:
        self.name = f"{precision}, {micro_rows} rows at a time" + (", compiled" if compiled else "")
        self.facts: dict[str, Any] = {"precision": precision, "micro_rows": micro_rows, "compile": compiled}
        settings = {"context": CONTEXT, "rows_per_step": ROWS, "micro_rows": micro_rows, "compile": compiled}
        recipe = PretrainRecipe.model_validate(settings)
        config = preset("demo")
        decoder = initialise(Decoder(config, rope_factors="short"), torch.Generator().manual_seed(0))
        self.engine = ReplicatedEngine(decoder, recipe, precision, torch.device("cpu"))
        self.batches, self.rows, self.step = BatchPlan.deal(ROWS, micro_rows, 1), RandomRows(config.vocab_size), 0
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def warm_up(self) -> None:
        """The first steps: allocation, and compilation where asked for."""
        began = time.perf_counter()
        self.run(2)
        self.facts["first_two_steps_s"] = round(time.perf_counter() - began, 2)
        self.wall, self.cpu = [], []

    def run(self, steps: int) -> None:
        """Times each of `steps` steps, reading of rows included."""
        for _ in range(steps):
            wall, cpu = time.perf_counter(), time.process_time()
            result = self.engine.step(read_batch(self.rows, self.batches, self.step), 1e-3)
            result.loss.item()
            self.wall.append(time.perf_counter() - wall)
            self.cpu.append(time.process_time() - cpu)
            self.step += 1

    def result(self) -> dict[str, Any]:
        tokens = CONTEXT * ROWS
        median = sorted(self.wall)[len(self.wall) // 2]
        return {
            "case": self.name,
            **self.facts,
            "tokens_per_s": round(tokens / min(self.wall)),
            "tokens_per_s_median": round(tokens / median),
            "tokens_per_cpu_s": round(tokens / min(self.cpu)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed steps per case and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = psutil.getloadavg()[0]
    cases = [Case(precision, micro, False) for precision in ("float32", "bfloat16") for micro in (4, 8, 16)]
    if not options.no_compile:
        cases += [Case(precision, 16, True) for precision in ("float32", "bfloat16")]
    for case in cases:
        case.warm_up()
    for _ in range(options.rounds):
        for case in cases:
            case.run(options.steps)
    results = [case.result() for case in cases]
    facts = {
        **provenance("torch"),
        "threads": options.threads,
        "load_before": round(load, 2),
        "torch": torch.__version__,
        "model": {"preset": "demo", "parameters": count_parameters(preset("demo")), "context": CONTEXT, "rows_per_step": ROWS},
        "results": results,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for one in results:
        print(f"{one['case']:38} {one['tokens_per_s']:>8,} tokens/s   {one['tokens_per_cpu_s']:>8,} tokens per CPU second")


if __name__ == "__main__":
    main()
