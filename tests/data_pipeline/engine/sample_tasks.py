"""Functions that the engine's tests give to workers; workers import them by name."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from data_pipeline.engine.references import Ref


def square(number: int) -> int:
    return number * number


def join(left: Any, right: Any) -> str:
    return f"({left}{right})"


def look_up(key: str, table: Ref) -> tuple[str, int]:
    """The entry, and how many tasks this process has asked the reference before."""
    found = table.get()
    found["asked"] = found.get("asked", 0) + 1
    return found[key], found["asked"]


def slow_line(parameter: tuple[str, int, float]) -> int:
    """Writes a line, then takes its time."""
    folder, number, seconds = parameter
    with open(Path(folder) / "calls", "a") as stream:
        stream.write(f"{number}\n")
    (Path(folder) / f"pid-{os.getpid()}").touch()
    time.sleep(seconds)
    return number * number


def leave(folder: str) -> str:
    """Changes the process's working folder."""
    Path(folder).mkdir(exist_ok=True)
    os.chdir(folder)
    return folder


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def hang(seconds: float) -> None:
    """Sleeps in C, where no Python signal handler runs."""
    ctypes.PyDLL(None).usleep(int(1e6 * seconds))  # PyDLL keeps the interpreter's lock as well


def hold_memory(megabytes: int) -> int:
    held = bytearray(b"x") * (megabytes * 2**20)
    time.sleep(20 if megabytes > 500 else 0)
    return len(held)


def fail(kind: str) -> str:
    if kind == "OSError":
        raise ConnectionResetError(104, "mine, not the store's")
    if kind == "unpicklable":
        raise Local("cannot come back")
    if kind == "untold":
        raise Untold
    if kind == "huge":
        raise ValueError(b"x" * 2**21)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return kind


class Local(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, text: str) -> None:
        super().__init__(text, 1)


class Untold(Exception):
    """An exception that cannot be shown as text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail_until(parameter: tuple[str, int]) -> int:
    """Fails until it was called as often as asked; counts in a file."""
    path, times = Path(parameter[0]), parameter[1]
    calls = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * calls)
    if calls < times:
        raise ValueError(f"call {calls}")
    return calls


def process_id(number: int) -> int:
    return os.getpid()
