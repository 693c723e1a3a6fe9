"""Tasks that worker processes run in test_workers.py: a worker imports its function by name."""

import errno
import os
import time

KEPT: list[bytearray] = []


def double(setting: int, task: int | str) -> int | str:
    """Twice the number plus the setting; some tasks misbehave on purpose."""
    if task == "die":
        os._exit(1)
    if task == "spin":
        while True:
            pass
    if task == "raise":
        raise ValueError("a fault of ours")
    if task == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if task == "hog":
        return len(bytearray(3 * 2**30))
    if task == "keep":
        KEPT.append(bytearray(b"x" * 2**26))
        return os.getpid()
    assert isinstance(task, int)
    time.sleep(0.002 * (task % 3))
    return 2 * task + setting
