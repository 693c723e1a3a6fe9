"""The ranks of a run as the trainer speaks to them: few and small messages, none where there is one rank."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class World:
    """This rank's number and how many there are."""

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks for all."""
        return self.rank == 0

    def agree(self, make: Callable[[], Value]) -> Value:
        """What the first rank makes, on every rank; where it fails, every rank fails with its words."""
        if self.ranks == 1:
            return make()
        made: list[Any] = [None, None]
        if self.first:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = error
        dist.broadcast_object_list(made, 0)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def attend(self, work: Callable[[Callable[[], None]], Value], beat: Callable[[], None]) -> Value:
        """What the first rank's long work makes, on every rank, however long it takes: no collective waits for its end.

        `work` is called with a function that it calls whenever it has come further; every rank's `beat` follows.
        """
        if self.ranks == 1:
            return work(beat)
        ended, moved = threading.Event(), [0]
        made: list[Any] = [None, None]

        def advance() -> None:
            moved[0] += 1

        def run() -> None:
            try:
                made[0] = work(advance)
            except BaseException as error:
                made[1] = error
            ended.set()

        if self.first:
            threading.Thread(target=run, name="first-rank", daemon=True).start()
        seen, done = 0, False
        while not done:
            done, now = self.agree(lambda: (ended.wait(LOOK_SECONDS), moved[0]))
            if now > seen:
                beat()
            seen = now

        def outcome() -> Value:
            if made[1] is not None:
                raise made[1]
            return made[0]

        return self.agree(outcome)

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of the ranks."""
        if self.ranks == 1:
            return [value]
        found: list[Any] = [None] * self.ranks
        dist.all_gather_object(found, value)
        return found

    def total(self, value: float) -> float:
        """The sum of a number over the ranks."""
        return sum(self.gather(value))

    def meet(self) -> None:
        """Returns when every rank is here."""
        if self.ranks > 1:
            dist.barrier(device_ids=[torch.cuda.current_device()] if torch.cuda.is_available() else None)
