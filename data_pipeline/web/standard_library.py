"""The documentation of the running Python's standard library as HTML pages: real pages that every machine has.

Rendering imports the modules, and an import may print, hang, exit or open a window, so it is done by a child process whose CPU
time per module is limited by the kernel; a module that kills its child is counted and the rest goes on.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Importing these acts: a browser window, a printed poem, two graphical programs.
ACTING = frozenset({"antigravity", "this", "idlelib", "turtledemo"})

# Where an object lies in memory: `<object at 0x7f...>`, `handle 7f...`; pydoc writes spaces as &nbsp; in signatures.
ADDRESS = re.compile(r"\b((?:at|handle)(?: |&nbsp;))(?:0x)?[0-9A-Fa-f]{6,}\b")
# Long values are shown with their middle left out, and a path with them.
SHORTENED_PATH = re.compile(r"from '/[^'<>]*\.\.\.[^'<>]*'")

# The child: one JSON line in per start, one JSON line out per module on a descriptor of its own, so that what modules print goes nowhere.
CHILD = r"""
import sys
# Some pages show how the interpreter was started, and its name differs between virtual environments. Before anything keeps a copy.
sys.executable, sys.orig_argv = "/usr/bin/python3", ["python3"]
import importlib, json, os, pydoc, signal, warnings
names, seconds, channel = json.loads(sys.argv[1]), float(sys.argv[2]), os.fdopen(int(sys.argv[3]), "w", encoding="utf-8")
warnings.simplefilter("ignore")
signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
for name in names:
    print(json.dumps({"start": name}), file=channel, flush=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        module = importlib.import_module(name)
        html = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
    except BaseException as error:
        print(json.dumps({"name": name, "error": type(error).__name__}), file=channel, flush=True)
    else:
        print(json.dumps({"name": name, "html": html}), file=channel, flush=True)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
os._exit(0)
"""


@dataclass(frozen=True)
class LibraryPage:
    """One module: its page, or why there is none."""

    module: str
    html: str = ""
    error: str = ""


def module_names() -> list[str]:
    """The public top-level modules of the standard library, sorted, without those whose import acts."""
    return sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in ACTING)


def page_url(module: str) -> str:
    """The page's address: a name that no server answers (RFC 6761)."""
    return f"http://python-{sys.version_info[0]}-{sys.version_info[1]}.localhost/library/{module}.html"


def library_pages(names: list[str], seconds: float) -> Iterator[LibraryPage]:
    """One `LibraryPage` per name, in order; `seconds` of CPU time at most for each."""
    remaining = list(names)
    while remaining:
        finished = 0
        started = False
        for line in child_lines(remaining, seconds):
            message = json.loads(line)
            if "start" in message:
                started = True
                continue
            finished += 1
            started = False
            html = scrub(message["html"]) if "html" in message else ""
            yield LibraryPage(message["name"], html, message.get("error", ""))
        if finished < len(remaining):  # the child died: in the module it had begun, or before it could begin
            yield LibraryPage(remaining[finished], error="killed its process" if started else "no process")
            finished += 1
        remaining = remaining[finished:]


def child_lines(names: list[str], seconds: float) -> Iterator[str]:
    """What the rendering child says, line by line; it runs in an empty folder, without a display and with an environment of its own."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory(prefix="phial-pydoc-") as folder:
        # A fixed hash seed and environment, and no site-packages (-S): sets, os.environ and sys.meta_path are printed into some pages.
        environment = {"PYTHONHASHSEED": "0", "PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONNOUSERSITE": "1"}
        command = [sys.executable, "-I", "-S", "-c", CHILD, json.dumps(names), str(seconds), str(write_end)]
        child = subprocess.Popen(
            command, cwd=folder, env=environment, pass_fds=[write_end], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write_end)
        try:
            with os.fdopen(read_end, encoding="utf-8") as lines:
                for line in lines:
                    if not line.endswith("\n"):
                        break  # the child died while it wrote
                    yield line
        finally:
            child.kill()
            child.wait()


def scrub(html: str) -> str:
    """The page without what differs between machines: object addresses and the folders that Python is installed in."""
    html = SHORTENED_PATH.sub("from '...'", ADDRESS.sub(r"\g<1>0x...", html))
    places = {sysconfig.get_path("stdlib"): "Lib", sysconfig.get_path("platstdlib"): "Lib"}
    places |= {str(Path(place).resolve()): name for place, name in places.items()}
    places |= {sys.prefix: "Python", sys.base_prefix: "Python", sys.exec_prefix: "Python", sys.base_exec_prefix: "Python"}
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1 and place not in ("/usr", "/usr/local"):
            html = html.replace(place, places[place])
    return html
