"""What communication costs: bytes and messages that this rank sends, counted per call where the bytes leave."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """What one rank sends, in bytes and messages to other ranks, and how many elements it adds up."""

    bytes: int = 0
    messages: int = 0
    added: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.bytes + other.bytes, self.messages + other.messages, self.added + other.added)


@dataclass(eq=False)
class Ledger:
    """(operator, cost) per call, in order."""

    calls: list[tuple[str, Cost]] = field(default_factory=list)

    def total(self, name: str | None = None) -> Cost:
        """The sum over all calls, or over those of one operator."""
        return sum((cost for its, cost in self.calls if name in (None, its)), Cost())

    def by_operator(self) -> dict[str, Cost]:
        found: dict[str, Cost] = defaultdict(Cost)
        for name, cost in self.calls:
            found[name] += cost
        return dict(found)


# Not a context variable: on a GPU the way back runs in a thread of its own.
_open: list[Ledger] = []


@contextmanager
def recording() -> Iterator[Ledger]:
    """A ledger of all calls inside the `with` block, on the way there and back."""
    ledger = Ledger()
    _open.append(ledger)
    try:
        yield ledger
    finally:
        _open.remove(ledger)


def record(name: str, cost: Cost) -> None:
    """Writes one call into every open ledger."""
    for ledger in _open:
        ledger.calls.append((name, cost))
