"""Several files that belong together, written beside their places and put there when all are complete."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.errors import InputError


@contextmanager
def written_together(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary names for the targets, none of which may exist; the first, without which a reader finds nothing, is put in place last."""
    for target in targets:
        if target.exists():
            raise InputError(f"{target}: stands there already; give another name or take it away")
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    parts = [target.with_name(f".{target.name}.{mark}.part") for target in targets]
    placed: list[Path] = []
    try:
        yield parts
        for part in parts:
            with open(part, "rb+") as stream:
                os.fsync(stream.fileno())
        for part, target in reversed(list(zip(parts, targets, strict=True))):
            os.replace(part, target)
            placed.append(target)
    except BaseException:
        for path in (*parts, *placed):
            path.unlink(missing_ok=True)
        raise
