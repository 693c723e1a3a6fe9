"""What the measured tasks do; workers import it by name."""

import hashlib
import os
import random
import time
from pathlib import Path

from data_pipeline.engine.references import Ref


def timed(parameter: tuple[str, int, float], salt: Ref) -> tuple[str, float]:
    """Takes its time, and gives a value that anybody can check. Each call writes who made it, so that calls can be counted and killed."""
    log, number, seconds = parameter
    begun = time.perf_counter()
    with open(Path(log), "a") as stream:
        stream.write(f"{number} {os.getpid()}\n")
    time.sleep(seconds)
    return right(number, salt.get()), time.perf_counter() - begun


def right(number: int, salt: str) -> str:
    return hashlib.sha256(f"{salt} {number}".encode()).hexdigest()


def counted(number: int) -> float:
    """CPU work of about a tenth of a second, in Python; returns the wall seconds that it took."""
    begun = time.perf_counter()
    total = number
    for step in range(1_500_000):
        total = (total * 31 + step) & 0xFFFFFFFF
    return time.perf_counter() - begun


def tiny(number: int) -> int:
    return number + 1


def durations(count: int, mean: float, seed: int = 7) -> list[float]:
    """Log-normal seconds with the given mean: most tasks are short, some are several times as long."""
    draw = random.Random(seed)
    spread = 0.6
    return [mean * draw.lognormvariate(-spread * spread / 2, spread) for _ in range(count)]
