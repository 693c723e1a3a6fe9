"""`phial worker`: a process without state that does the tasks of a journal's plans until they are done, or for a time."""

import signal
import time
from typing import Any

from data_pipeline.engine.leases import LEASE_SECONDS
from data_pipeline.engine.patience import STORE_PACKAGES
from data_pipeline.engine.plans import read_plan
from data_pipeline.engine.process import MEMORY_GROWTH_BYTES
from data_pipeline.engine.store import Store
from data_pipeline.engine.worker import Crew
from data_pipeline.errors import InputError

POLL_SECONDS = (0.1, 2.0)
STOPPED = "told to stop"


class ToldToStop(BaseException):
    """SIGTERM came."""


def told_to_stop(number: int, frame: Any) -> None:
    """Leaves whatever the main thread waits for; a second notice changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    raise ToldToStop


def stand(
    url: str,
    *,
    workers: int = 1,
    seconds: float | None = None,
    idle_seconds: float | None = None,
    plans: list[str] | None = None,
    lease_seconds: float = LEASE_SECONDS,
    memory_growth_bytes: int = MEMORY_GROWTH_BYTES,
    signals: bool = True,
) -> dict[str, Any]:
    """Does tasks until every plan is done; with `idle_seconds` until there was nothing to do for so long; at most for `seconds`.

    SIGTERM, a spot machine's notice, gives back what is under way at once. Returns how many tasks were done and why it ended: "done",
    "idle", "time", "told to stop", "budget". `plans` names the only plans to look at. Raises InputError where no plan can be done here.
    """
    store = Store(url)
    crew = Crew(store, workers=workers, lease_seconds=lease_seconds, memory_growth_bytes=memory_growth_bytes)
    before = signal.signal(signal.SIGTERM, told_to_stop) if signals else None
    try:
        why = watch(crew, store, seconds, idle_seconds, plans)
    except ToldToStop:
        why = STOPPED
    except Exception as error:
        raise told(url, error) from error
    finally:
        if signals:  # a notice that comes while all ends already changes nothing
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        crew.close()
        if signals:
            signal.signal(signal.SIGTERM, before)
    if crew.error is not None:
        raise told(url, crew.error) from crew.error
    refused = crew.picker.refused
    if refused and not crew.did and why == "done":
        raise InputError(f"{url}: {'; '.join(sorted(set(refused.values())))}; run the worker with the code of the plan")
    return {"tasks": crew.did, "ended": why, "refused": sorted(set(refused.values()))}


def told(url: str, error: BaseException) -> BaseException:
    """A store's own error as one line: no credentials, no right, no network. Others are faults of ours and stay as they are."""
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, InputError) or not (isinstance(error, OSError) or package in STORE_PACKAGES):
        return error
    return InputError(f"{url}: the journal cannot be read or written: {type(error).__name__}: {error}")


def watch(crew: Crew, store: Store, seconds: float | None, idle_seconds: float | None, plans: list[str] | None) -> str:
    """Opens plans to the crew as they come; returns why it is enough."""
    begun = last_busy = time.monotonic()
    opened: set[str] = set()
    pause, done_before = POLL_SECONDS[0], 0
    while not crew.stop.is_set():
        names = plans if plans is not None else [name.removesuffix(".json") for name in store.names("plans")]
        for name in (name for name in names if name not in opened):
            crew.open(read_plan(store, name))
            opened.add(name)
            pause = POLL_SECONDS[0]
        if not opened and idle_seconds is None:
            raise InputError(f"{store.url}: no plan; start the program that makes it first, or say how long to wait: --idle-seconds")
        now = time.monotonic()
        busy = bool(opened) and not crew.picker.finished and not crew.picker.paused
        if busy or crew.did != done_before:
            last_busy, done_before = now, crew.did
        elif crew.picker.paused and crew.busy:
            pass  # what is under way when the budget is spent comes to its end
        elif idle_seconds is None:
            return "budget" if crew.picker.paused else "done"
        elif now - last_busy >= idle_seconds:
            return "idle"
        if seconds is not None and now - begun >= seconds:
            return "time"
        left = [pause] + ([] if seconds is None else [seconds - (now - begun)])
        crew.stop.wait(max(0.0, min(left)))
        pause = min(1.2 * pause, POLL_SECONDS[1])
    return STOPPED
