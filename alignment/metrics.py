"""metrics.jsonl of a fine-tuning run: one row per logged step, and what a progress bar needs."""

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignment.loop import Progress
from data_pipeline.errors import InputError
from data_pipeline.storage import read_json_lines, write_json_lines

# trl's name -> ours, for what a row holds; rewards/... and logps/... keep their names.
NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "num_tokens": "tokens",
}


class MetricsWriter(TrainerCallback):
    """Writes a row at every log, calls `progress` at every step, and stops a run whose loss is no longer a number."""

    def __init__(self, path: Path, from_step: int, progress: Progress | None) -> None:
        self.path = path
        self.progress = progress
        self.start = time.perf_counter()
        self.rows = [row for row in read_json_lines(path) if row["step"] <= from_step] if from_step and path.exists() else []
        write_json_lines(path, self.rows)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.progress:
            self.progress(state.global_step, state.max_steps, self.rows[-1] if self.rows else {})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"the loss is {logs['loss']} at step {state.global_step}; a lower learning_rate (now {args.learning_rate:g}) is needed"
            )
        if self.rows and self.rows[-1]["step"] == state.global_step:
            return
        row: dict[str, Any] = {"step": state.global_step}
        row |= {ours: logs[name] for name, ours in NAMES.items() if name in logs}
        row |= {name: value for name, value in logs.items() if name.startswith(("rewards/", "logps/"))}
        row["seconds"] = round(time.perf_counter() - self.start, 3)
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
