"""Leased claims: who is at which try, renewed while it lasts, free when its holder is gone.

A holder on the same machine is gone when its process is. Elsewhere it is gone when its claim was not renewed for a whole lease, as the
watcher's own clock measures it, or when it ran out more than a lease ago by the clocks of both; so clocks that differ by less than a lease
take nothing from anybody.
"""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from data_pipeline.engine.store import Store

LEASE_SECONDS = 60.0

_at_work: set[str] = set()  # the claims that this process holds, whoever in it; one whose end could not be written is not among them


@cache
def machine() -> str:
    """Names this machine as far as process ids mean the same: host, start of the system, and container."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(found)


@cache
def began(pid: int) -> float:
    """When a process was started: with its number it names the process."""
    return psutil.Process(pid).create_time()


class Claim:
    """A try that this process holds."""

    def __init__(self, task: str, number: int, lease_seconds: float) -> None:
        self.task = task
        self.number = number
        self.lease_seconds = lease_seconds
        self.worker = uuid.uuid4().hex
        self.since = time.time()
        self.renewed = 0

    @property
    def name(self) -> str:
        return f"claims/{self.task}.{self.number}.json"

    @property
    def content(self) -> bytes:
        facts = {
            "worker": self.worker,
            "machine": machine(),
            "pid": os.getpid(),
            "started": began(os.getpid()),
            "since": self.since,
            "expires": time.time() + self.lease_seconds,
            "lease": self.lease_seconds,
            "renewed": self.renewed,
        }
        return json.dumps(facts).encode()


class Leases:
    """The claims that this process holds; one thread renews them all, three times a lease."""

    def __init__(self, store: Store, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = store
        self.lease_seconds = lease_seconds
        self._held: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, tuple[Any, float]] = {}  # claim -> what it said when it last changed, and when that was on our clock

    def take(self, task: str, number: int) -> Claim | None:
        """Begins try `number`; None where another worker has begun it."""
        claim = Claim(task, number, self.lease_seconds)
        _at_work.add(claim.worker)
        try:
            won = self.store.create(claim.name, claim.content)
        except BaseException:
            _at_work.discard(claim.worker)
            raise
        if not won:
            _at_work.discard(claim.worker)
            return None
        with self._lock:
            self._held[claim.name] = claim
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()
        return claim

    def drop(self, claim: Claim) -> None:
        """The try has ended: its claim is renewed no more."""
        _at_work.discard(claim.worker)
        with self._lock:
            self._held.pop(claim.name, None)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self._stop.wait(self.lease_seconds / 3):
            with self._lock:
                held = list(self._held.values())
            for claim in held:
                claim.renewed += 1
                with suppress(Exception):  # a store that stays away costs the lease, and nobody is hurt by that
                    self.store.write(claim.name, claim.content, durable=False)

    def holder_gone(self, task: str, number: int) -> dict[str, Any] | None:
        """What the claim says if its holder is gone, else None."""
        name = f"claims/{task}.{number}.json"
        claim: dict[str, Any]
        try:
            claim = json.loads(self.store.read(name))
            said = (claim["worker"], claim["renewed"])
        except FileNotFoundError:
            return None  # removed by hand, or a store that shows names before contents
        except (ValueError, KeyError, TypeError):
            claim, said = {"lease": self.lease_seconds}, ("damaged", 0)
        if claim.get("machine") == machine():
            mine = claim["pid"] == os.getpid() and abs(claim["started"] - began(os.getpid())) < 1.0
            return None if (claim["worker"] in _at_work if mine else running(claim["pid"], claim["started"])) else claim
        now = time.monotonic()
        if name not in self._seen or self._seen[name][0] != said:
            self._seen[name] = (said, now)
        lease = claim["lease"]
        unchanged = now - self._seen[name][1] > lease
        overdue = "expires" in claim and time.time() > claim["expires"] + lease
        return claim if unchanged or overdue else None


def running(pid: int, started: float) -> bool:
    """Whether the process that began at `started` still runs; another one may have its number by now."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
