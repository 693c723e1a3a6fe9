"""events.jsonl: what happened to a run beside its steps, one line each, appended so that a kill loses at most a torn last line.

Every line has `time` (UTC, seconds since 1970), `kind` and `step`. Kinds: started, resumed, layout, mixture, checkpoint, spike, rewound,
evaluated, hang, restarted, finished. Steps that are done again leave their events in place: the file is the run's history.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

NAME = "events.jsonl"


def record(folder: Path, kind: str, step: int, **facts: Any) -> None:
    """Appends one event, handed to the operating system as one write before this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"time": round(time.time(), 3), "kind": kind, "step": step, **facts}) + "\n"
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, torn lines left out."""
    path = folder / NAME
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict) and "kind" in event:
            found.append(event)
    return found
