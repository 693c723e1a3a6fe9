"""Losses and times between two logged rows. No time decides what is trained."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipeline.errors import InputError
from training.engine import StepResult


class StepLog:
    """Losses since the last logged row. They stay on the device until a row or a checkpoint needs them."""

    def __init__(self, saved: dict[str, Any]) -> None:
        self.losses: list[float] = list(saved.get("losses", []))
        self.last: float = saved.get("loss", math.nan)
        self.grad_norm = math.nan
        self.pending: list[tuple[int, Tensor, Tensor]] = []

    def add(self, done: int, result: StepResult) -> None:
        """What step `done` (counted from 1) gave; an update that was left out was judged already and counts in no mean."""
        if result.applied:
            self.pending.append((done, result.loss, result.grad_norm))

    def settle(self, folder: str | Path) -> None:
        """Reads what is pending, and stops the run where a number is not finite."""
        if not self.pending:
            return
        steps, losses, norms = zip(*self.pending, strict=True)
        values = torch.stack([torch.stack(losses), torch.stack(norms)]).tolist()
        for step, loss, norm in zip(steps, *values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise InputError(
                    f"pretrain: step {step}: the loss is {loss} and the gradient norm {norm}; stopped, the last checkpoint in {folder} "
                    "is kept. Run on with [pretrain] spike_sigmas set, which leaves such updates out, or begin another run with a lower "
                    "learning_rate or clip, or a longer warmup_steps"
                )
        self.losses += values[0]
        self.last, self.grad_norm = values[0][-1], values[1][-1]
        self.pending = []

    def take_mean(self) -> float | None:
        """The mean loss since the last row; None where every update was left out."""
        mean = math.fsum(self.losses) / len(self.losses) if self.losses else None
        self.losses = []
        return mean


class PartClock:
    """Seconds by part of a step: data, step, checkpoint, evaluation. Wall time around calls: on a GPU arithmetic goes on behind them, and
    shows where the next call has to wait for it. Costs no synchronisation."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] = self.spent.get(part, 0.0) + time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Seconds of each part since this was last asked."""
        taken, self.spent = self.spent, {}
        return {part: round(seconds, 6) for part, seconds in taken.items()}


class Clock:
    """Wall and CPU seconds of a run, those before its last resumption included. Nothing is decided by them."""

    def __init__(self, spent: dict[str, Any], keeps_cpu: bool = True) -> None:
        """`spent` is a checkpoint's metadata; its `cpu_seconds` are of all ranks together, and one of them keeps them on."""
        self.before, self.cpu_before = spent.get("seconds", 0.0), spent.get("cpu_seconds", 0.0) if keeps_cpu else 0.0
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
