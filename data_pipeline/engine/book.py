"""What has come of every task: claims, tries, done records, dead letters. Names alone tell the state; only leases are ever overwritten.

    claims/<task>.<n>.json     try n was begun, by whom, until when; made by conditional create, so that one worker wins it
    tries/<task>.<n>.json      try n ended without a result: error, limit, lost, returned, undone
    done/<task>.json           the result: try, value's file with size and SHA-256, seconds; by conditional create, so that one stands
    dead/<task>.<n>.json       given up after try n
    revived/<task>.<n>.json    tries up to n no longer count
    values/<task>.<hash>       the pickled value

Claims stay where they are: try n of a task is begun once, for ever. A task is being worked on when its last claim has neither a tries file
nor a done record.
"""

import base64
import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.engine.errors import LimitExceeded, TaskError, WorkerLost
from data_pipeline.engine.store import Store
from data_pipeline.errors import InputError

ERROR, LIMIT, LOST, RETURNED, UNDONE = "error", "limit", "lost", "returned", "undone"
OWN = (ERROR, LIMIT)
LONGEST_BACKOFF_SECONDS = 60.0
LARGEST_ERROR_BYTES = 2**20  # of a pickled exception: its record is read by drivers and workers alike


@dataclass(kw_only=True)
class View:
    """The state of a journal at one moment, from the names of its files."""

    done: set[str]
    claims: dict[str, int]  # task -> its last claim
    tries: dict[str, list[int]]  # task -> tries that ended without a result
    dead: dict[str, int]  # task -> the try after which it was given up
    revived: dict[str, int]
    values: set[str] = field(default_factory=set)

    def next_try(self, task: str) -> int:
        return self.claims.get(task, 0) + 1

    def held(self, task: str) -> bool:
        """Whether the last try has begun and not ended."""
        last = self.claims.get(task, 0)
        return last > 0 and task not in self.done and last not in self.tries.get(task, ())

    def counted(self, task: str) -> list[int]:
        """The failed tries that count: those since the task was last revived."""
        return [number for number in self.tries.get(task, ()) if number > self.revived.get(task, 0)]

    def open(self, task: str) -> bool:
        return task not in self.done and task not in self.dead

    def ended(self, tasks: Iterable[str]) -> Iterator[tuple[str, int | None]]:
        """Those of the tasks that are done, with None, or dead, with their last try."""
        for task in tasks:
            if not self.open(task):
                yield task, None if task in self.done else self.dead[task]


class Book:
    """The journal's records, read and written."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: dict[str, dict[str, Any]] = {}

    def view(self, values: bool = False) -> View:
        """The state now. What began is read before what ended, so that a task which ends meanwhile is seen as ended."""
        begun = numbered(self.store.names("claims"))
        tries = numbered(self.store.names("tries"))
        done = {name.removesuffix(".json") for name in self.store.names("done")}
        revived = {task: max(numbers) for task, numbers in numbered(self.store.names("revived")).items()}
        dead = {task: max(numbers) for task, numbers in numbered(self.store.names("dead")).items()}
        return View(
            done=done,
            claims={task: max(numbers) for task, numbers in begun.items()},
            tries=tries,
            dead={task: number for task, number in dead.items() if number > revived.get(task, 0) and task not in done},
            revived=revived,
            values={name.partition(".")[0] for name in self.store.names("values")} if values else set(),
        )

    def record(self, name: str) -> dict[str, Any] | None:
        """A record as it stands; None where there is none, and one line where it is damaged."""
        try:
            found = json.loads(self.store.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{self.store.url}/{name}: not a record ({error}); remove it and run again") from error
        if not isinstance(found, dict):
            raise InputError(f"{self.store.url}/{name}: not a record; remove it and run again")
        return found

    def done(self, task: str) -> dict[str, Any] | None:
        """The done record; it is asked for anew each time, since a result may be taken back."""
        return self.record(f"done/{task}.json")

    def tried(self, task: str, number: int) -> dict[str, Any] | None:
        """How a try ended; that never changes, and is read once."""
        name = f"tries/{task}.{number}.json"
        if name not in self._kept and (found := self.record(name)) is not None:
            self._kept[name] = found
        return self._kept.get(name)

    def commit(self, task: str, record: dict[str, Any]) -> bool:
        """The first result stands; false for a later one. `record` names its worker, so that no two are alike."""
        return self.store.create(f"done/{task}.json", as_json(record), durable=True)

    def fail(self, task: str, number: int, kind: str, **facts: Any) -> bool:
        """Ends a try without a result; false where another worker has ended it."""
        return self.store.create(f"tries/{task}.{number}.json", as_json({"task": task, "try": number, "kind": kind, **facts}), durable=True)

    def bury(self, task: str, number: int, plan: str, index: int, text: str) -> None:
        letter = {"task": task, "try": number, "plan": plan, "index": index, "text": text}
        self.store.create(f"dead/{task}.{number}.json", as_json(letter), durable=True)

    def revive(self, tasks: Iterable[str], view: View) -> None:
        for task in tasks:
            self.store.create(f"revived/{task}.{view.claims.get(task, 0)}.json", as_json({"task": task}), durable=True)

    def undo(self, task: str) -> None:
        """Takes a result back whose value is gone or damaged, so that the task is done again."""
        record = self.done(task)
        if record is not None:
            self.fail(task, record["try"], UNDONE, seconds=record["seconds"], worker=record["worker"], text="its value was lost or damaged")
            if self.done(task) == record:  # else another has taken it back meanwhile, and a new result stands
                self.store.remove(f"done/{task}.json")

    def failures(self, task: str, view: View) -> tuple[int, int]:
        """Tries since the last revival that ended by the task's own fault, and those whose worker was lost."""
        kinds = [record["kind"] for number in view.counted(task) if (record := self.tried(task, number)) is not None]
        return sum(kind in OWN for kind in kinds), kinds.count(LOST)

    def pause(self, task: str, view: View, first: float, now: float) -> float:
        """Seconds that the task must still wait before its next try, after its last failure."""
        numbers = view.counted(task)
        last = self.tried(task, numbers[-1]) if numbers else None
        if last is None or last["kind"] not in (*OWN, LOST):
            return 0.0
        failed = sum(self.failures(task, view))
        return last["at"] + backoff(first, failed) - now


def backoff(first: float, failed: int) -> float:
    """Seconds to wait after `failed` failures: `first`, doubled with each, up to a minute."""
    return min(first * 2.0 ** min(failed - 1, 30), LONGEST_BACKOFF_SECONDS)


def numbered(names: list[str]) -> dict[str, list[int]]:
    """`<task>.<n>.json` names as task -> its numbers, ascending; other names are not ours."""
    found: dict[str, list[int]] = {}
    for name in names:
        task, _, rest = name.partition(".")
        number = rest.removesuffix(".json")
        if number.isdigit():
            found.setdefault(task, []).append(int(number))
    for numbers in found.values():
        numbers.sort()
    return found


def as_json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def pack_error(error: BaseException) -> str | None:
    """The exception as text that `error_of` reads; None where it does not come back as it was, or holds too much."""
    try:
        content = pickle.dumps(error)
        if len(content) > LARGEST_ERROR_BYTES:
            return None
        pickle.loads(content)
    except Exception:  # an exception class may do anything when it is made again
        return None
    return base64.b64encode(content).decode()


def error_of(task: str, record: dict[str, Any]) -> BaseException:
    """What `result()` raises for a dead task, from the record of its last try."""
    text = f"task {task}: {record.get('text', '')}"
    if record["kind"] == LIMIT:
        return LimitExceeded(text)
    if record["kind"] == LOST:
        return WorkerLost(text)
    if record.get("error"):
        try:
            error = pickle.loads(base64.b64decode(record["error"]))
        except Exception:  # its class is not here, or has changed
            return TaskError(f"{text}\n{record.get('trace', '')}")
        if isinstance(error, BaseException):
            error.add_note(f"in task {task}, try {record['try']}, in a worker:\n{record.get('trace', '')}")
            return error
    return TaskError(f"{text}\n{record.get('trace', '')}")
