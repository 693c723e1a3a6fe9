"""Checkpoints of trl's trainers that a killed run resumes from.

A checkpoint counts when its marker, written last, carries the fingerprint of the very same work; all others are removed. A run that is
resumed ends with the weights of one that was not disturbed, bit for bit.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from alignment.recipe import TuningRecipe
from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, sha256_of, write_json

MARKER = "complete.json"


def fingerprint(recipe: TuningRecipe, model: Path, data: Path, seed: int, precision: str) -> str:
    """SHA-256 of everything that decides the weights: the recipe (but not what it logs or saves), the model, the rows, the seed."""
    settings = recipe.model_dump(mode="json", exclude={"log_every", "save_every"})
    files = [
        file
        for pattern in ("*.safetensors", "config.json", "tokenizer.json", "chat_template.jinja")
        for file in sorted(model.glob(pattern))
    ]
    digests = [sha256_of(file) for file in [*files, data]]
    return hashlib.sha256(json.dumps([settings, digests, seed, precision], sort_keys=True).encode()).hexdigest()


def newest(folder: Path, wanted: str) -> Path | None:
    """The newest complete checkpoint of this work; whatever else lies in `folder` is removed."""
    found: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        if is_complete(checkpoint, wanted):
            found[int(checkpoint.name.removeprefix("checkpoint-"))] = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return found[max(found)] if found else None


def is_complete(checkpoint: Path, wanted: str) -> bool:
    try:
        return read_json(checkpoint / MARKER) == {"fingerprint": wanted}
    except InputError:
        return False


def step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0


def marker_callback(wanted: str) -> Any:
    """The trainer callback that marks each checkpoint complete once everything in it is written."""
    from transformers import TrainerCallback

    class MarkComplete(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / MARKER, {"fingerprint": wanted})

    return MarkComplete()


def remove(folder: Path) -> None:
    """All checkpoints; the finished model stands beside them."""
    shutil.rmtree(folder, ignore_errors=True)
