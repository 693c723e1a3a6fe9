"""What `map` gives for each parameter, when its task is done or dead."""

import pickle
from typing import Any

from data_pipeline.engine.book import Book, error_of
from data_pipeline.engine.references import Ref
from data_pipeline.errors import InputError


class Future:
    """A finished task: `parameters` as they were given, `index` their place in `map`'s list, `task_id` its name in the journal."""

    def __init__(self, book: Book, *, index: int, parameters: Any, task_id: str, dead_after: int | None) -> None:
        self.index = index
        self.parameters = parameters
        self.task_id = task_id
        self._book = book
        self._dead_after = dead_after
        self._record: dict[str, Any] | None = None

    @property
    def dead(self) -> bool:
        """Whether the task was given up; `result()` raises its last error."""
        return self._dead_after is not None

    @property
    def record(self) -> dict[str, Any]:
        """The done record; of a dead task that of its last try."""
        if self._record is None:
            number = self._dead_after
            self._record = self._book.done(self.task_id) if number is None else self._book.tried(self.task_id, number)
        if self._record is None:
            raise InputError(f"{self._book.store.url}: the record of task {self.task_id} is gone; call map again")
        return self._record

    @property
    def attempts(self) -> int:
        """Tries that were begun, the last one included."""
        return self.record["try"]

    @property
    def seconds(self) -> float:
        """Wall time of the last try."""
        return self.record["seconds"]

    def reference(self) -> Ref:
        """The value as a reference, which other tasks take without it passing through the driver."""
        record = self.record
        if self.dead:
            raise error_of(self.task_id, record)
        return Ref(self._book.store.url, record["value"], record["sha256"])

    def result(self) -> Any:
        """The function's value, read and checked; for a dead task its last error is raised as it was.

        A value that is gone or damaged is one line, and its task open again.
        """
        reference = self.reference()
        try:
            return pickle.loads(reference.read())
        except InputError as error:
            self._book.undo(self.task_id)
            raise InputError(f"{error}; the task is open again: call map once more") from error

    def __repr__(self) -> str:
        return f"Future({self.task_id}, {'dead' if self.dead else 'done'}, parameters={self.parameters!r})"[:200]
