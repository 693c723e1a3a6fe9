"""Loss spikes: which updates are left out, and when that does not help. Imports no torch.

A step whose loss or gradient norm lies far above those of the steps before it would do more harm than its rows are worth. Leaving such
updates out by a bound of some deviations over a window of steps is OLMo's practice; going back to a checkpoint and past the rows around the
spike is PaLM's (arXiv 2204.02311, section 5.1). What is decided depends on the steps seen alone, so a resumed run decides alike.
"""

import math
from collections import deque
from typing import Any


class SpikeWatch:
    """Judges steps by the last `window` that were applied; with less than half a window of them everything finite is accepted."""

    def __init__(self, sigmas: float, window: int, saved: dict[str, Any] | None = None) -> None:
        self.sigmas, self.window = sigmas, window
        saved = saved or {}
        self.losses: deque[float] = deque(saved.get("losses", []), window)
        self.norms: deque[float] = deque(saved.get("norms", []), window)
        self.in_a_row: int = saved.get("in_a_row", 0)

    def accept(self, loss: float, norm: float) -> bool:
        """Whether the update may be made; a number that is not finite never may."""
        good = math.isfinite(loss) and math.isfinite(norm)
        good = good and loss <= self.bound(self.losses) and norm <= self.bound(self.norms)
        if good:
            self.losses.append(loss)
            self.norms.append(norm)
            self.in_a_row = 0
        else:
            self.in_a_row += 1
        return good

    def bound(self, values: deque[float]) -> float:
        """The mean of the last steps and `sigmas` of their deviations more."""
        if len(values) < max(2, self.window // 2):
            return math.inf
        mean = math.fsum(values) / len(values)
        return mean + self.sigmas * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"losses": list(self.losses), "norms": list(self.norms), "in_a_row": self.in_a_row}


def contains(ranges: list[tuple[int, int]], step: int) -> bool:
    """Whether a step lies in one of the ranges."""
    return any(begin <= step < end for begin, end in ranges)
