"""Runs the tiny chain again and again, killing it (SIGKILL) where it is told to, until it ends: `killed_chain.py RECIPE OUT KILLS`.

KILLS is a JSON list of [stage, moment]. A moment is a count, from the beginning of the stage on, of writes, renames and deletions of
files and of training steps; so a kill strikes the same place on every machine. A program of its own because it forks: one thread, imported
once, so that a try costs no start-up. Writes one JSON line: the exit code of every try, and how many moments each stage of the last had.
"""

import dataclasses
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  (imported once, for all tries)
import onnxruntime  # noqa: F401
import torch
import trl.trainer.dpo_trainer
import trl.trainer.sft_trainer  # noqa: F401
from transformers import Trainer

import demo
import phial
from training.replicated import ReplicatedEngine

CALLS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "write")


class Moments:
    """Counts the moments of each stage in this process, and kills it at the one that is meant."""

    def __init__(self, stage: str = "", moment: int = 0) -> None:
        self.stage, self.left = stage, moment
        self.pid = os.getpid()
        self.current = ""
        self.armed = False
        self.counts: Counter[str] = Counter()

    def watch(self) -> None:
        for name in CALLS:
            setattr(os, name, self.counted(getattr(os, name)))
        ReplicatedEngine.step = self.counted(ReplicatedEngine.step)  # type: ignore[method-assign]
        Trainer.training_step = self.counted(Trainer.training_step)  # type: ignore[method-assign]
        demo.STAGES = tuple(dataclasses.replace(stage, work=self.begins(stage.name, stage.work)) for stage in demo.STAGES)

    def begins(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(chain: Any) -> Any:
            self.current = name
            self.armed = self.armed or name == self.stage
            return work(chain)

        return call

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if os.getpid() == self.pid:  # not in the processes that read pages
                self.counts[self.current] += 1
                if self.armed:
                    self.left -= 1
                    if self.left < 0:
                        os.kill(self.pid, signal.SIGKILL)
            return function(*arguments, **named)

        return call


def attempt(arguments: list[str], moments: Moments, log: Path) -> None:
    """One try in this forked process; never returns."""
    with open(log, "ab") as shown:
        os.dup2(shown.fileno(), 1)
        os.dup2(shown.fileno(), 2)
    moments.watch()
    code = phial.run(arguments)
    log.with_suffix(".json").write_text(json.dumps(moments.counts))
    sys.stdout.flush()
    os._exit(code)


def main(recipe: str, out: Path, kills: list[tuple[str, int]], *more: str) -> None:
    torch.set_num_threads(1)
    log = out.with_name(f"{out.name}.log")
    ended: list[int] = []
    for stage, moment in [*kills, ("", 0)]:
        child = os.fork()
        if child == 0:
            attempt(["demo", "--recipe", recipe, "--out", str(out), *more], Moments(stage, moment), log)
        _, status = os.waitpid(child, 0)
        ended.append(os.waitstatus_to_exitcode(status))
    sys.stdout.write(json.dumps({"exit_codes": ended, "moments": json.loads(log.with_suffix(".json").read_text())}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), *sys.argv[4:])
