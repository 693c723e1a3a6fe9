"""When a checkpoint is written, which are kept, and whether one may be gone on from. The format is `modeling/checkpoint.py`'s.

Tensors are logical and whole, whatever the number of ranks: `weight/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME` in float32.
Metadata: `step`, `identity` (every setting that decides the run, flat), `losses` (of steps not logged yet), `seconds`, `cpu_seconds`,
`precision`, `ranks`, `zero_stage`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from modeling.checkpoint import MANIFEST, Checkpoint, finish_checkpoint, latest_checkpoint, list_checkpoints
from modeling.checkpoint_parts import PartWriter
from training.engine import Engine


class CheckpointStore:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path, keep_last: int, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.identity = identity

    def latest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest complete, intact checkpoint; one of another run is refused, naming the setting that differs."""
        path = latest_checkpoint(self.folder, report=lambda line: say(f"pretrain: {line}"), verify=True)
        if path is None:
            return None
        checkpoint = Checkpoint(path)
        self.check_identity(checkpoint)
        return checkpoint

    def check_identity(self, checkpoint: Checkpoint) -> None:
        """Refuses a checkpoint whose recipe or data is not this run's."""
        made = checkpoint.metadata.get("identity", {})
        for name in [*self.identity, *(name for name in made if name not in self.identity)]:
            before, now = made.get(name), self.identity.get(name)
            if before == now:
                continue
            what = f"with {name} = {before!r}, and it is {now!r} now; put it back"
            if name == "data":
                what = "on other token shards or another order of them; put them back"
            raise InputError(f"{checkpoint.folder}: this checkpoint was trained {what}, or start over by deleting {self.folder.parent}")

    def write(self, engine: Engine, step: int, metadata: dict[str, Any]) -> None:
        """Writes the state after `step` updates and then drops the oldest; all ranks take part, the first writes."""
        target = self.folder / f"step-{step:08d}"
        state = engine.tensors()
        if engine.rank == 0:
            if not (target / MANIFEST).exists():
                shutil.rmtree(target, ignore_errors=True)  # what a kill in the middle of writing left
            with PartWriter(target) as writer:
                for name, tensor in state:
                    writer.add(name, tensor)
            finish_checkpoint(target, 1, {"step": step, "identity": self.identity, **metadata})
            self.prune()
        else:
            for _ in state:
                pass

    def prune(self) -> None:
        """Removes all but the last complete checkpoints, and incomplete ones. The manifest goes first, so a kill leaves nothing that
        looks complete."""
        complete = list_checkpoints(self.folder, report=lambda _: None)
        kept = {Path(path).name for path in complete[-self.keep_last :]}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept:
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
