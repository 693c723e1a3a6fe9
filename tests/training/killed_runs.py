"""Runs a tiny pretraining again and again, killing it (SIGKILL) at seeded moments, until it ends: `killed_runs.py CORPUS OUT SEED KILLS`.

A program of its own because it forks: one thread, imported once, so that a try costs no start-up. A moment is a count of writes, renames
and deletions of files, which lie thickest inside checkpoints, and of optimizer steps. Writes one JSON line: the exit code of every try.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.recipe import ModelRecipe, PretrainRecipe
from training.replicated import ReplicatedEngine
from training.trainer import pretrain

PHASES = [{"name": "one", "steps": 7, "weights": {"web": 1.0}}, {"name": "two", "steps": 7, "weights": {"web": 1.0, "synthetic": 3.0}}]
RECIPE = PretrainRecipe(
    phases=PHASES,  # type: ignore[arg-type]
    context=32,
    rows_per_step=4,
    learning_rate=3e-3,
    warmup_steps=2,
    checkpoint_every=3,
    keep_last=2,
    log_every=2,
    threads=1,
)
MODEL = ModelRecipe(preset="tiny")
# What a try does before a kill may strike it; about so many such moments are in a whole run.
MOMENTS_PER_RUN = 120


def train(corpus: Path, out: Path) -> dict[str, Any]:
    return pretrain(RECIPE, MODEL, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, seed=5)


def kill_after(moments: int) -> None:
    """Makes this process kill itself just before its moment number `moments`."""
    left = [moments]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "write"):
        setattr(os, name, counted(getattr(os, name)))
    ReplicatedEngine.step = counted(ReplicatedEngine.step)  # type: ignore[method-assign]


def main(corpus: Path, out: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    torch.set_num_threads(1)
    ended: list[int] = []
    for attempt in range(kills + 1):
        child = os.fork()
        if child == 0:
            if attempt < kills:
                kill_after(chance.randrange(MOMENTS_PER_RUN // 3))
            result = train(corpus, out)
            (out / "last.json").write_text(json.dumps(result))
            os._exit(0)
        chance.random()  # the child draws from its own copy
        _, status = os.waitpid(child, 0)
        ended.append(os.waitstatus_to_exitcode(status))
    sys.stdout.write(json.dumps({"exit_codes": ended}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
