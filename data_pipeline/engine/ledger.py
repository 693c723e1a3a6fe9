"""What a journal has cost so far: every try, of results and of failures, a core each."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from data_pipeline.engine.book import LOST, Book

READERS = 16


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The ledger's sums. Of a lost worker only the time up to its last sign of life is known."""

    tasks: int  # with a result
    dead: int
    attempts: int  # tries that ended, with a result or without
    failed: int  # tries that ended by an error or a limit
    lost: int  # tries whose worker was lost
    core_seconds: float  # wall time of all tries, a core each
    lost_core_seconds: float  # of those whose worker was lost
    cpu_seconds: float  # CPU time of the functions that gave a result
    money: float  # core_seconds at the budget's price


class Ledger:
    """Sums the records of a journal, each read once."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._records: dict[str, dict[str, Any]] = {}
        self._dead = 0

    def update(self) -> None:
        """Reads what came since the last time."""
        view = self.book.view()
        self._dead = len(view.dead)
        names = [f"done/{task}.json" for task in view.done]
        names += [f"tries/{task}.{number}.json" for task, numbers in view.tries.items() for number in numbers]
        new = [name for name in names if name not in self._records]
        if new:
            with ThreadPoolExecutor(READERS) as readers:
                found = readers.map(self.book.record, new)
                self._records.update({name: record for name, record in zip(new, found, strict=True) if record is not None})
        for name in self._records.keys() - set(names):  # results that were taken back stand among the tries now
            del self._records[name]

    def costs(self, price_per_core_hour: float) -> Costs:
        """The sums of what was read."""
        done = [record for name, record in self._records.items() if name.startswith("done/")]
        tries = [record for name, record in self._records.items() if name.startswith("tries/")]
        lost = [record for record in tries if record["kind"] == LOST]
        core_seconds = sum(record["seconds"] for record in (*done, *tries))
        return Costs(
            tasks=len(done),
            dead=self._dead,
            attempts=len(done) + len(tries),
            failed=sum(record["kind"] in ("error", "limit") for record in tries),
            lost=len(lost),
            core_seconds=core_seconds,
            lost_core_seconds=sum(record["seconds"] for record in lost),
            cpu_seconds=sum(record["cpu_seconds"] for record in done),
            money=core_seconds / 3600 * price_per_core_hour,
        )
