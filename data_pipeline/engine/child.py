"""What runs in a worker's process: one task after another, each loaded by name, its value written to the store.

The process ends with its parent, so that nobody works on a task whose worker is gone. Of the journal it reads what a task needs.
"""

import ctypes
import hashlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import Any

import psutil

from data_pipeline.engine.book import pack_error
from data_pipeline.engine.identity import load, source_of
from data_pipeline.engine.patience import momentary
from data_pipeline.engine.plans import TWO, Order, read_parameter
from data_pipeline.engine.references import Ref, held_bytes
from data_pipeline.engine.store import Store

PARENT_CHECK_SECONDS = 0.5
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
TEXT_CHARACTERS = 2000

_loaded: dict[str, str] = {}  # module -> SHA-256 of its source when this process imported it


def begin(parent: int) -> None:
    """The process's first act: it will not outlive its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch_parent, args=(parent,), name="parent", daemon=True).start()


def watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def hello() -> tuple[int, int]:
    """The process's number, and the bytes it holds before it has done anything."""
    return os.getpid(), psutil.Process().memory_info().rss


def work(url: str, order: Order) -> dict[str, Any]:
    """Does one task. `kind` of the answer: done, error (of the function), refused (this is not the planned code), store (it stays away)."""
    store = Store(url)
    try:
        function = load(order.function)
        module = order.function.partition(":")[0]
        source = _loaded.setdefault(module, source_of(module))
    except Exception as error:  # a module may raise anything while it is imported
        return {"kind": "refused", "text": f"{order.function} cannot be imported here: {type(error).__name__}: {error}"}
    if source != order.source:
        return {"kind": "refused", "text": f"{order.function}: its module differs here from the one that was planned"}
    try:
        parameter = read_parameter(store, order)
        keywords = Ref(url, f"objects/{order.keywords}", order.keywords).get()
        if order.form == TWO:
            positional = [each.get() if isinstance(each, Ref) else each for each in parameter]
        else:
            positional = [parameter]
    except Exception as error:
        return failure(error, "its parameters cannot be read: ", store_error=momentary(error))
    cpu = cpu_seconds()
    try:
        value = function(*positional, **keywords)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a task are its errors, not ours
        return failure(error)
    try:
        content = pickle.dumps(value, 5)
    except Exception as error:
        return failure(error, "its value cannot be pickled: ")
    del value
    return put_value(store, order.task, content, cpu_seconds() - cpu)


def put_value(store: Store, task: str, content: bytes, cpu: float) -> dict[str, Any]:
    """Writes the value under a name that its hash is part of, so that two workers of one task never write over each other."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"values/{task}.{sha256[:16]}"
    try:
        store.write(name, content)
    except Exception as error:
        return failure(error, "its value cannot be written: ", store_error=True)
    return {"kind": "done", "value": name, "bytes": len(content), "sha256": sha256, "cpu_seconds": round(cpu, 6), "rss": own_rss()}


def failure(error: BaseException, before: str = "", store_error: bool = False) -> dict[str, Any]:
    """An exception as a record. It is never raised out of the process, so that the task's own OSError is not taken for the store's."""
    try:
        said = str(error)
    except Exception:  # its own method raises, and what leaves this process must be an answer
        said = "it cannot be shown as text"
    text = f"{before}{type(error).__name__}: {said}"[:TEXT_CHARACTERS]
    trace = "".join(traceback.format_exception(error))[-2 * TEXT_CHARACTERS :]
    kind = "store" if store_error else "error"
    return {"kind": kind, "text": text, "trace": trace, "error": pack_error(error), "rss": own_rss()}


def own_rss() -> int:
    """Resident bytes but for the references kept, which are meant to stay."""
    return psutil.Process().memory_info().rss - held_bytes()


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
