"""On each machine: `python -m training.cluster.agent COMMAND...` runs the command and ends it, with all its children, when nobody listens.

The supervisor writes a byte into our standard input every few seconds. Where the pipe closes, or stays silent for too long because the
network between is gone, the command's process group is killed: no rank outlives the one who would restart it.
"""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

LOOK_SECONDS = 1.0  # between two looks at what the command has started
SILENCE_SECONDS = float(os.environ.get("PHIAL_LEASE_SECONDS", "30"))


def main(command: list[str]) -> int:
    """Returns the command's exit code, 1 where it was ended."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    heard, looked, groups = time.monotonic(), 0.0, {child.pid}
    try:
        while child.poll() is None:
            if time.monotonic() - looked > LOOK_SECONDS:  # a torchrun that is killed leaves ranks that are no longer below it
                looked = time.monotonic()
                groups |= groups_below(child.pid)
            ready, _, _ = select.select([0], [], [], 0.2)
            if ready:
                if not os.read(0, 4096):
                    return 1
                heard = time.monotonic()
            if time.monotonic() - heard > SILENCE_SECONDS:
                sys.stderr.write(f"agent: nothing heard for {SILENCE_SECONDS:g} s; the ranks of this machine are ended\n")
                return 1
        return child.returncode
    finally:
        end_groups(child, groups)


def end_groups(child: "subprocess.Popen[bytes]", groups: set[int]) -> None:
    """Kills the command and everything it has started, stopped processes too; `groups` were below it when it lived."""
    for group in groups | groups_below(child.pid):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    child.wait()


def groups_below(pid: int) -> set[int]:
    """The process groups of a process's descendants: torchrun gives each rank one of its own."""
    import psutil

    found = set()
    try:
        for process in psutil.Process(pid).children(recursive=True):
            found.add(os.getpgid(process.pid))
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    return found - {os.getpgid(0)}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
