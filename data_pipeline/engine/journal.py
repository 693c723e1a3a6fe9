"""The journal of a run: plan, leased claims, done records. All state lives in one folder on any fsspec store.

    plan.json                       what there is to do: task ids in order, each with the fingerprint of everything that decides its output
    claims/<task>.<attempt>.json    who works on it, until when: made by conditional create, so that only one worker wins an attempt
    done/<task>.json                the task's record, written last: its fingerprint, outputs with size and SHA-256, counts, seconds

A task is done when its record is there, carries the planned fingerprint, and its outputs are as recorded. A worker's death is a lease that
expires; on the worker's own machine a claim whose process is gone is free at once.
"""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from data_pipeline.errors import InputError
from data_pipeline.storage import filesystem, is_local, read_json, sha256_of, write_json

LEASE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work: its name and the fingerprint of everything that decides its output."""

    id: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """The record of a finished task."""

    id: str
    fingerprint: str
    outputs: dict[str, dict[str, Any]]  # path relative to the run folder -> {"bytes": ..., "sha256": ...}
    record: dict[str, Any] = field(default_factory=dict)  # what the task says of itself: counts, scores
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def fingerprint(*parts: Any) -> str:
    """SHA-256 over JSON values: equal inputs, equal fingerprint."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Journal:
    """The journal of the run folder `root`; it lives in `root/journal`."""

    def __init__(self, root: str | Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self.root = str(root)
        self.folder = f"{self.root}/journal"
        self.lease_seconds = lease_seconds
        self.store, _ = filesystem(self.folder)

    def plan(self, tasks: list[Task]) -> None:
        """Writes the plan. A task planned before under another fingerprint is thereby to be done again."""
        write_json(f"{self.folder}/plan.json", {"format": 1, "tasks": [asdict(task) for task in tasks]})

    def done(self, task: Task) -> Done | None:
        """The record of the task if it was finished under this fingerprint and every output is still as recorded."""
        return self.look(task)[0]

    def look(self, task: Task) -> tuple[Done | None, str]:
        """The record as `done` gives it; where there is none, why a task that was finished once must be done again, else an empty line."""
        path = f"{self.folder}/done/{task.id}.json"
        if not self.store.exists(filesystem(path)[1]):
            return None, ""
        try:
            record = Done(**read_json(path))
        except (InputError, TypeError):
            return None, f"{path} is damaged"
        if record.fingerprint != task.fingerprint:
            return None, "its settings, or those of a stage before it, changed"
        for name, facts in record.outputs.items():
            output = f"{self.root}/{name}"
            inside = filesystem(output)[1]
            if not self.store.exists(inside):
                return None, f"{name} is missing"
            if self.store.size(inside) != facts["bytes"] or sha256_of(output) != facts["sha256"]:
                return None, f"{name} is not as it was written"
        return record, ""

    def finish(self, task: Task, outputs: list[str], record: dict[str, Any], seconds: float, cpu_seconds: float) -> Done:
        """Hashes the outputs (files, or folders whose files all count; paths relative to the run folder) and writes the record."""
        facts: dict[str, dict[str, Any]] = {}
        for output in outputs:
            for name in self._files(output):
                path = f"{self.root}/{name}"
                facts[name] = {"bytes": self.store.size(filesystem(path)[1]), "sha256": sha256_of(path)}
        done = Done(id=task.id, fingerprint=task.fingerprint, outputs=facts, record=record, seconds=seconds, cpu_seconds=cpu_seconds)
        write_json(f"{self.folder}/done/{task.id}.json", asdict(done))
        return done

    def _files(self, output: str) -> list[str]:
        base = filesystem(self.root)[1].rstrip("/")
        inside = filesystem(f"{self.root}/{output}")[1]
        if not self.store.isdir(inside):
            return [output]
        return sorted(name[len(base) + 1 :] for name in self.store.find(inside))

    @contextmanager
    def claim(self, task: Task) -> Iterator[int]:
        """Holds the task while the block runs, renewing the lease; yields the attempt number.

        Raises InputError where a living worker holds it.
        """
        attempt = self._take(task)
        path = f"{self.folder}/claims/{task.id}.{attempt}.json"
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self.lease_seconds / 3):
                write_json(path, self._claim())

        keeper = threading.Thread(target=renew, daemon=True)
        keeper.start()
        try:
            yield attempt
        finally:
            stop.set()
            keeper.join()
            self._remove(filesystem(path)[1])

    def _claim(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "expires": time.time() + self.lease_seconds,
        }

    def _take(self, task: Task) -> int:
        while True:
            attempt = 1
            for name in self._claims(task):
                attempt = max(attempt, attempt_of(name) + 1)
                holder = self._read_claim(name)
                if holder is not None and alive(holder):
                    raise InputError(
                        f"{self.root}: {task.id} is being done by process {holder['pid']} on {holder['host']}; "
                        "wait for it, or choose another folder"
                    )
            path = f"{self.folder}/claims/{task.id}.{attempt}.json"
            if not self._create(path):
                continue  # another worker won this attempt: look at its claim, never overtake it
            claims = self._claims(task)
            if any(attempt_of(name) > attempt for name in claims):  # attempts went by while we looked
                self._remove(filesystem(path)[1])
                continue
            for stale in claims:
                if attempt_of(stale) < attempt:
                    self._remove(stale)
            return attempt

    def _remove(self, claim: str) -> None:
        with suppress(FileNotFoundError):  # removed by whoever took the task over
            self.store.rm(claim)

    def _claims(self, task: Task) -> list[str]:
        return sorted(map(str, self.store.glob(f"{filesystem(self.folder)[1]}/claims/{task.id}.*.json")))

    def _read_claim(self, name: str) -> dict[str, Any] | None:
        """The claim, or None where its writer died before it was whole, or gave it back in this moment."""
        for _ in range(20):
            try:
                with self.store.open(name, "rb") as stream:
                    return json.load(stream)
            except json.JSONDecodeError:
                time.sleep(0.05)  # made, but perhaps still being written
            except FileNotFoundError:
                return None
        return None

    def _create(self, path: str) -> bool:
        """Conditional create: false where the claim exists already."""
        inside = filesystem(path)[1]
        if is_local(path):
            Path(inside).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.store.open(inside, "xb") as stream:
                stream.write(json.dumps(self._claim()).encode())  # type: ignore[arg-type]
        except FileExistsError:
            return False
        return True


def attempt_of(claim: str) -> int:
    """The attempt number in a claim's name."""
    return int(claim.rsplit(".", 2)[-2])


def alive(holder: dict[str, Any]) -> bool:
    """Whether a claim's worker may still be at work: its process lives (on this machine), or its lease runs (elsewhere)."""
    if holder["host"] == socket.gethostname():
        try:
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 1.0
        except psutil.NoSuchProcess:
            return False
    return time.time() < holder["expires"]


def run_task(
    journal: Journal,
    task: Task,
    outputs: list[str],
    work: Callable[[], dict[str, Any]],
    on_kept: Callable[[Done], None] | None = None,
    on_redone: Callable[[str], None] | None = None,
) -> Done:
    """Does the task unless it is done already; `work` returns the task's record and leaves its outputs complete.

    `on_kept` is told the record that stands; `on_redone` why a task that was finished once is done again.
    """

    def kept() -> tuple[Done | None, str]:
        found, why_not = journal.look(task)
        if found is not None and on_kept is not None:
            on_kept(found)
        return found, why_not

    if (found := kept()[0]) is not None:
        return found
    with journal.claim(task):
        found, why_not = kept()
        if found is not None:  # finished by another worker while we waited for the claim
            return found
        if why_not and on_redone is not None:
            on_redone(why_not)
        begun, cpu_begun = time.perf_counter(), cpu_seconds()
        record = work()
        return journal.finish(task, outputs, record, time.perf_counter() - begun, cpu_seconds() - cpu_begun)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
