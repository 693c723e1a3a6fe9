"""metrics.jsonl: one row per logged step, appended so that a kill loses at most a torn last line, and rewound when a run resumes.

Columns: `step` (updates done), `phase`, `tokens` (read so far), `loss` (mean over the steps since the row before, nats per token),
`learning_rate` and `grad_norm` (of this step, before clipping), `tokens_per_s` (since the row before), `seconds` (of the whole run),
`mfu_causal` and `mfu_full` (model FLOPs over the devices' peak, null where that is not known), `memory_bytes` (the first rank's peak),
`left_out` (updates not made so far), `rows_read` (of each source so far), `seconds_by_part` (of the first rank, since the row before).
`loss` is null where every update since the row before was left out.
"""

import json
import os
from pathlib import Path
from typing import Any

from data_pipeline.storage import write_json_lines


class Metrics:
    """The metrics file of one run; `rewind` first, then `append`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Drops every row after `step` and a line torn by a kill: those steps are about to be done again."""
        if not self.path.exists():
            return
        rows = read_metrics(self.path)
        write_json_lines(self.path, [row for row in rows if row["step"] <= step])

    def append(self, row: dict[str, Any]) -> None:
        """One row, handed to the operating system as one write before this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, (json.dumps(row) + "\n").encode())
        finally:
            os.close(descriptor)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, up to the first line that a kill left torn."""
    rows: list[dict[str, Any]] = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or "step" not in row:
            break
        rows.append(row)
    return rows
