"""Seconds of steps that two ranks take together, the seconds of them spent in communication, and the efficiencies that follow.

All ways to take a step take turns, one each a round, and a ratio is of two steps of the same round, so that what slows the machine for a
while slows both sides of it. Kind of every figure here: measured.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch.distributed as dist

from modeling.parallel import exchange as boxes
from modeling.parallel import sums

Step = Callable[[], object]
# Seconds of one step on one rank, and how many of them in communication.
Taken = tuple[float, float]

WARM_UP = 2
# The modules that send, each by its own name for `exchange`.
SENDERS: tuple[ModuleType, ...] = (boxes, sums)


@dataclass
class Meter:
    """Seconds that this rank has spent in starting messages and waiting for them."""

    seconds: float = 0.0


@contextmanager
def metered() -> Iterator[Meter]:
    """Times `exchange` inside the `with` block: the one function through which all operators send. The operators stay as they are.

    A wait ends when the last piece has come, so it holds the time for which the other rank is late. Copies into and out of messages that
    the operators make before and after count as compute.
    """
    meter, original = Meter(), boxes.exchange

    def timed(*arguments: Any, **named: Any) -> Callable[[], Any]:
        began = time.perf_counter()
        wait = original(*arguments, **named)
        meter.seconds += time.perf_counter() - began

        def finish() -> Any:
            began = time.perf_counter()
            received = wait()
            meter.seconds += time.perf_counter() - began
            return received

        return finish

    for module in SENDERS:
        setattr(module, "exchange", timed)  # noqa: B010
    try:
        yield meter
    finally:
        for module in SENDERS:
            setattr(module, "exchange", original)  # noqa: B010


@dataclass(frozen=True)
class Turn:
    """A step; `first_only`: by rank 0 alone, while the others wait without work."""

    step: Step
    first_only: bool = False


def take_turns(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[Taken]]:
    """Called on every rank with the same names: what this rank's steps took, after `WARM_UP` rounds that do not count."""
    taken: dict[str, list[Taken]] = {name: [] for name in turns}
    with metered() as meter:
        for number in range(WARM_UP + rounds):
            for name, turn in turns.items():
                dist.barrier()
                if turn.first_only and dist.get_rank() > 0:
                    continue
                meter.seconds = 0.0
                began = time.perf_counter()
                turn.step()
                one = (time.perf_counter() - began, meter.seconds)
                if number >= WARM_UP:
                    taken[name].append(one)
    return taken


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median and quartiles, to so many figures."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {name: float(f"{value:.{digits}g}") for name, value in (("median", middle), ("low", low), ("high", high))}


def alone(ranks: Sequence[Mapping[str, Sequence[Taken]]], case: str) -> tuple[list[float], list[float]]:
    """Per round, T1 of a one-rank step: with nothing else on the machine, and the mean of both cores when both run it at once."""
    solo = [seconds for seconds, _ in ranks[0][f"{case}, solo"]]
    pair = [statistics.mean(one) for one in zip(*([s for s, _ in rank[f"{case}, pair"]] for rank in ranks), strict=True)]
    return solo, pair


def together(ranks: Sequence[Mapping[str, Sequence[Taken]]], name: str) -> dict[str, list[float]]:
    """Per round of a step of all ranks, the slowest rank's seconds, the longest compute, and the shortest communication.

    The rank that communicates for the shortest time is the one that the others wait for, so its waits are transfers and not patience.
    """
    rounds = list(zip(*(rank[name] for rank in ranks), strict=True))
    return {
        "step": [max(seconds for seconds, _ in one) for one in rounds],
        "compute": [max(seconds - waited for seconds, waited in one) for one in rounds],
        "communication": [min(waited for _, waited in one) for one in rounds],
    }


def scaled(ranks: Sequence[Mapping[str, Sequence[Taken]]], case: str, name: str, work: float) -> dict[str, Any]:
    """Efficiency of the step `name`, whose ranks each do `work` times the work of the one-rank step `case`: work * T1 / T_p.

    Weak scaling has work = 1, strong scaling on p ranks 1 / p. `fair` takes T1 while the other core does the same without communication,
    `plain` with the other core idle; they differ by what two cores take from each other in memory bandwidth, cache and clock.
    """
    solo, pair = alone(ranks, case)
    found = together(ranks, name)
    return {
        "kind": "measured",
        "efficiency_fair": spread([work * one / many for one, many in zip(pair, found["step"], strict=True)]),
        "efficiency_plain": spread([work * one / many for one, many in zip(solo, found["step"], strict=True)]),
        "step_s": spread(found["step"]),
        "compute_s": spread(found["compute"]),
        "communication_s": spread(found["communication"]),
    }


def one_rank(ranks: Sequence[Mapping[str, Sequence[Taken]]], case: str) -> dict[str, Any]:
    """T1 both ways, and the contention: by how much a step grows because the other core works too, without any communication."""
    solo, pair = alone(ranks, case)
    return {
        "kind": "measured",
        "solo_s": spread(solo),
        "beside_the_same_work_s": spread(pair),
        "contention": spread([two / one for one, two in zip(solo, pair, strict=True)]),
    }
