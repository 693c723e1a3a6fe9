"""One way of the GPU benchmark, timed: finds how many rows fit, warms up, times whole steps until they are done or the time is."""

import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

from benchmarks.step.agreement import check_isolation, check_same
from benchmarks.step.gpu_models import GOAL, peak_flops, start_rows
from benchmarks.step.gpu_sides import Trainer, Way, device_facts, free, is_out_of_memory
from benchmarks.step.profiles import profile_step
from benchmarks.step.rows import IGNORED, Batch, rows_from
from benchmarks.step.sides import Side
from data_pipeline.errors import InputError
from modeling.config import DecoderConfig
from modeling.counts import count_parameters, flops_per_token

# Every number of rows that is tried compiles the layers again; torch would go on uncompiled after the eighth, and here fails after these.
MAX_COMPILED = 64
# Documents that see one another change the loss by a thousandth or so; sums on a GPU may differ in their last bits.
LEAK_BOUND = 1e-5


class Trial:
    """`settings`: context, rows (0: as many as fit), accumulate, steps, mean. `until` is the clock's time after which no step begins."""

    def __init__(self, config: DecoderConfig, way: Way, device: torch.device, settings: dict[str, Any], until: float) -> None:
        self.config, self.way, self.device, self.settings, self.until = config, way, device, settings, until

    def run(self, profile_to: Path | None = None, reference: dict[str, Any] | None = None) -> dict[str, Any]:
        """Figures of this way, checked against those of `reference`. Its model is gone from the device afterwards."""
        torch.compiler.reset()
        free(self.device)
        with torch._dynamo.config.patch(recompile_limit=MAX_COMPILED, fail_on_recompile_limit_hit=True):
            return self.measure(profile_to, reference)

    def measure(self, profile_to: Path | None, reference: dict[str, Any] | None) -> dict[str, Any]:
        began = time.perf_counter()
        trainer = Trainer(self.config, self.way, self.device)
        rows = self.fit(trainer)
        checks = self.check(trainer, rows, reference)
        losses = [float(trainer.step(self.batches(rows, number))) for number in range(2)]
        warm_up = time.perf_counter() - began
        seconds, lengths = self.time_steps(trainer, rows, losses)
        if profile_to is not None:
            profile_step(partial(trainer.step, self.batches(rows, 0)), profile_to)
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        del trainer
        free(self.device)
        facts = {"way": str(self.way), "micro_rows": rows, "accumulate": self.settings["accumulate"], "warm_up_s": round(warm_up, 1)}
        facts |= {"checks": checks, "peak_bytes": peak, "first_loss": losses[0], "last_loss": losses[-1]}
        return facts | self.figures(seconds, rows, lengths)

    def batches(self, rows: int, number: int) -> list[Batch]:
        """The micro-batches of step `number`, on the device."""
        parts, mean = self.settings["accumulate"], self.settings["mean"]
        context, kind = self.settings["context"], "packed" if mean else "unpacked"
        firsts = [(number * parts + part) * rows for part in range(parts)]
        made = [rows_from(kind, first, rows, context, self.config.vocab_size, mean or 1) for first in firsts]
        return [one.to(self.device) for one in made]

    def check(self, trainer: Trainer, rows: int, reference: dict[str, Any] | None) -> dict[str, Any]:
        """Loss and gradient norm of the first row, which every way has, against the reference's; and that documents are kept apart.

        In the shape that is timed, so that nothing is compiled for it; the other rows of the micro-batch have no targets. Float8 scales
        a whole tensor by its largest value, so that there another document moves every value a little, and isolation is not tried.
        """
        batch, how = self.batches(rows, 0)[0], str(self.way).partition(", ")[2]
        side = Side(self.way.side, trainer.parameters, {how: trainer.loss})
        targets_BT = batch.targets_BT.clone()
        targets_BT[1:] = IGNORED
        loss, norm = side.gradient_norm(how, replace(batch, targets_BT=targets_BT), bfloat16=False)
        checks: dict[str, Any] = {"loss": loss, "gradient_norm": norm, "precision": "float8" if self.way.float8 else "bfloat16"}
        if reference is not None:
            precision = "float8" if "float8" in (checks["precision"], reference["checks"]["precision"]) else "bfloat16"
            check_same(str(self.way), checks, reference["way"], reference["checks"], batch.kind, precision)
        if bool((batch.documents_BT > 0).any()) and not self.way.float8:
            checks["leak"] = check_isolation(side, how, batch, bfloat16=False, bound=LEAK_BOUND)
        return checks

    def fit(self, trainer: Trainer) -> int:
        """Rows at a time with which a step of two micro-batches fits: an estimate, lowered after each failure, said aloud.

        Two, because the second has the first one's gradients beside it.
        """
        given = self.settings["rows"]
        rows = given or self.estimate()
        while True:
            try:
                trainer.rehearse(self.batches(rows, 0)[:2])
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
        free(self.device)
        left = torch.cuda.mem_get_info(self.device)[0]
        all_logits = self.way.side != "phial"
        return start_rows(self.config, self.settings["context"], left, count_parameters(self.config), self.way.recompute, all_logits)

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
