"""One at a time: whoever trains into a run's folder holds its lock, and a second one is refused."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.errors import InputError

NAME = "run.lock"


@contextmanager
def run_lock(out: Path, say: Callable[[str], object] = lambda line: None) -> Iterator[None]:
    """Held while this process lives or the block lasts; the file stays, and a dead holder's lock is free.

    Where the file system has no locks that is said, and nothing is held.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / NAME).open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            who = handle.read().strip() or "unknown"
            raise InputError(f"{out}: is being trained into already ({who}); wait for it, end it, or take another --out") from error
        except OSError as error:
            say(f"{out}: no locks here ({error.strerror}); look that nobody else trains into it")
        else:
            handle.truncate(0)
            handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
            handle.flush()
        yield
