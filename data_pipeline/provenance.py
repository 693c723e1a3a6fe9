"""What a figure was measured on: machine, commit, time, peak memory. Every results file says so in this form."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


def provenance(*packages: str) -> dict[str, Any]:
    """`machine`, `commit`, `date` (UTC) and the versions of `packages`, as results files carry them."""
    return {"machine": machine(*packages), "commit": commit(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system, Python, and the versions of `packages`."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def commit() -> str:
    """The checkout's commit, with a mark where files differ from it. PHIAL_COMMIT tells a copy elsewhere, in a container say."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if told := os.environ.get("PHIAL_COMMIT"):
        return told
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_rss_bytes(children: bool = False) -> int:
    """The most memory this process has held, in bytes; with `children`, that of its largest ended child where that is more."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with contextlib.suppress(OSError, StopIteration):
        # A process started by a large one inherits that one's ru_maxrss; the high-water mark of its own memory starts anew.
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit) if children else peak
