"""The append-only log of results that lets a killed run go on."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError


class ProgressLog:
    """One line per result: {"key", "row"}. The key says what decided the result, so a line is never used for another model or protocol.

    A line that a kill cut short is dropped. Without a path nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        if path.parent.exists() and not path.parent.is_dir():
            raise InputError(f"{path.parent}: a file stands there; results need a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self.rows[entry["key"]] = entry["row"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}: not a progress log ({error!r}); remove it to start again") from error
        if len(whole) < len(content):
            with open(path, "r+b") as stream:
                stream.truncate(len(whole))

    def find(self, key: str) -> dict[str, Any] | None:
        """The row logged under the key."""
        return self.rows.get(key)

    def add(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Appends rows and has them on disk before it returns."""
        self.rows.update(entries)
        if self.path is None:
            return
        lines = "".join(json.dumps({"key": key, "row": row}, ensure_ascii=False) + "\n" for key, row in entries)
        with open(self.path, "ab") as stream:
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())
