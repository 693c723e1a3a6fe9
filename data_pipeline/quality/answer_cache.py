"""Every answer that was paid for, in a file that only grows: asked once more, the question costs nothing."""

import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from data_pipeline.errors import InputError


def key_of(body: dict[str, Any]) -> str:
    """The key of a request: a hash of all of it, that is of prompt, model and sampling."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class AnswerCache:
    """JSON lines {"key", "content", "usage"}; a line that a killed run left unfinished is cut off. One process at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.stream.close()
            raise InputError(f"{self.path}: another process is writing to it; wait for its end, or give another file") from error
        self.lock = threading.Lock()
        self.answers: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        self.stream.seek(0)
        end = 0
        for number, line in enumerate(self.stream, 1):
            try:
                row = json.loads(line)
                self.answers[row["key"]] = {"content": str(row["content"]), "usage": row["usage"]}
                if not line.endswith(b"\n"):
                    raise ValueError("unfinished")
            except (ValueError, KeyError, TypeError) as error:
                if line.endswith(b"\n"):
                    self.stream.close()
                    raise InputError(f"{self.path}, line {number}: not an answer of this cache; move the file away") from error
                break
            end += len(line)
        self.stream.truncate(end)

    def get(self, key: str) -> dict[str, Any] | None:
        return self.answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keeps an answer; it is on disk when this returns."""
        line = json.dumps({"key": key, **answer}, ensure_ascii=True).encode() + b"\n"
        with self.lock:
            self.answers[key] = answer
            self.stream.write(line)
            self.stream.flush()
            os.fsync(self.stream.fileno())

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stream.close()
