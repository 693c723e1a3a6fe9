"""One way of the GPU benchmark, timed: finds how many rows fit, warms up, times whole steps until they are done or the time is."""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.step.gpu_models import GOAL, peak_flops, start_rows
from benchmarks.step.gpu_sides import Trainer, Way, device_facts, free, is_out_of_memory
from benchmarks.step.profiles import profile_step
from benchmarks.step.rows import Batch, make_batch
from data_pipeline.errors import InputError
from modeling.config import DecoderConfig
from modeling.counts import count_parameters, flops_per_token


class Trial:
    """`settings`: context, rows (0: as many as fit), accumulate, steps, mean. `until` is the clock's time after which no step begins."""

    def __init__(self, config: DecoderConfig, way: Way, device: torch.device, settings: dict[str, Any], until: float) -> None:
        self.config, self.way, self.device, self.settings, self.until = config, way, device, settings, until

    def run(self, profile_to: Path | None = None) -> dict[str, Any]:
        """Figures of this way. Its model is gone from the device afterwards."""
        free(self.device)
        began = time.perf_counter()
        trainer = Trainer(self.config, self.way, self.device)
        rows = self.fit(trainer)
        losses = [float(trainer.step(self.batches(rows, number))) for number in range(2)]
        warm_up = time.perf_counter() - began
        seconds, lengths = self.time_steps(trainer, rows, losses)
        if profile_to is not None:
            profile_step(partial(trainer.step, self.batches(rows, 0)), profile_to)
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        del trainer
        free(self.device)
        facts = {"way": str(self.way), "micro_rows": rows, "accumulate": self.settings["accumulate"], "warm_up_s": round(warm_up, 1)}
        return facts | self.figures(seconds, rows, lengths) | {"peak_bytes": peak, "first_loss": losses[0], "last_loss": losses[-1]}

    def batches(self, rows: int, number: int) -> list[Batch]:
        """The micro-batches of step `number`, on the device."""
        parts = self.settings["accumulate"]
        context, kind = self.settings["context"], "packed" if self.settings["mean"] else "unpacked"
        made = [
            make_batch(kind, rows, context, self.config.vocab_size, number * parts + part, self.settings["mean"] or 1)
            for part in range(parts)
        ]
        return [one.to(self.device) for one in made]

    def fit(self, trainer: Trainer) -> int:
        """Rows at a time whose forward and backward pass fit: an estimate, lowered after each failure, said aloud."""
        given = self.settings["rows"]
        rows = given or self.estimate()
        while True:
            try:
                for batch in self.batches(rows, 0)[:1]:
                    trainer.loss(batch).backward()
                trainer.drop_gradients()
                return rows
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed = f"{self.way}: {rows} rows of {self.settings['context']} tokens do not fit"
            trainer.drop_gradients()
            free(self.device)
            if given or rows == 1:
                raise InputError(f"{failed}; use --micro-rows or --recompute full")
            rows -= 1 if rows <= 4 else rows // 4
            print(f"{failed}; trying {rows}", flush=True)

    def estimate(self) -> int:
        if self.device.type != "cuda":
            return 2
        total = torch.cuda.get_device_properties(self.device).total_memory
        return start_rows(self.config, self.settings["context"], total, count_parameters(self.config), self.way.recompute)

    def time_steps(self, trainer: Trainer, rows: int, losses: list[float]) -> tuple[list[float], list[int]]:
        """Seconds of each step, and the lengths of all documents in them. Rows are made and moved before the clock starts."""
        seconds: list[float] = []
        lengths: list[int] = []
        for number in range(2, 2 + self.settings["steps"]):
            if len(seconds) >= 2 and time.monotonic() > self.until:
                print(f"{self.way}: time is up after {len(seconds)} steps", flush=True)
                break
            batches = self.batches(rows, number)
            lengths += [length for batch in batches for length in document_lengths(batch)]
            began = time.perf_counter()
            losses.append(float(trainer.step(batches)))  # reading the loss waits for the forward pass only
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return seconds, lengths

    def figures(self, seconds: list[float], rows: int, lengths: list[int]) -> dict[str, Any]:
        """Step time, tokens per second and MFU. Attention of packed rows is counted three ways; see `mfu` in the record."""
        tokens = rows * self.settings["context"] * self.settings["accumulate"]
        speed = tokens / statistics.median(seconds)
        context = self.settings["context"]
        flops = {
            "causal": flops_per_token(self.config, context, "causal"),
            "full": flops_per_token(self.config, context, "full"),
            "causal_own_documents": flops_per_token(self.config, lengths, "causal"),
        }
        peak = peak_flops(device_facts(self.device)["name"])
        mfu = {name: round(speed * each / peak, 4) if peak else None for name, each in flops.items()}
        found = {"step_s": [round(one, 4) for one in seconds], "tokens_per_step": tokens, "tokens_per_s": round(speed, 1)}
        return found | {"flops_per_token": flops, "mfu": mfu, "goal_causal_mfu": GOAL}


def document_lengths(batch: Batch) -> list[int]:
    """The lengths of all documents of a batch."""
    ends = [one.unique_consecutive(return_counts=True)[1] for one in batch.documents_BT]
    return [int(length) for one in ends for length in one]
