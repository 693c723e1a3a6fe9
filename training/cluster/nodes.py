"""How a command is run on a machine: over ssh, in a network namespace of this one, or as it is."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Node:
    """A machine: what others reach it by, its ranks, and the interface that gloo is to use ("" leaves it to gloo)."""

    name: str
    address: str
    slots: int
    interface: str = ""

    def wrap(self, argv: list[str], environment: dict[str, str]) -> list[str]:
        """The command line that runs `argv` there, from the folder of this checkout, with these variables set."""
        return ["env", *(f"{name}={value}" for name, value in environment.items()), *argv]

    def start(self, argv: list[str], environment: dict[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Runs it. Its standard input is a pipe: that it closes is how the other side learns that we are gone."""
        line = self.line(argv, environment)
        return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)

    def line(self, argv: list[str], environment: dict[str, str]) -> list[str]:
        """The command line with all that a module of this checkout needs, and the interface."""
        settings = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        if self.interface:
            settings["GLOO_SOCKET_IFNAME"] = self.interface
        return self.wrap(argv, settings)


@dataclass(frozen=True)
class SshNode(Node):
    """Another machine, with this checkout and its virtual environment at the same paths and the run's folder on shared storage."""

    def wrap(self, argv: list[str], environment: dict[str, str]) -> list[str]:
        words = shlex.join(super().wrap(argv, environment))
        # Keys only, since nobody is there to type; a line that is dead is noticed within a quarter of a minute.
        options = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ConnectTimeout=15"]
        return ["ssh", *options, self.name, f"cd {shlex.quote(str(ROOT))} && exec {words}"]


@dataclass(frozen=True)
class NamespaceNode(Node):
    """A network namespace of this machine, which has an address and a link of its own."""

    def wrap(self, argv: list[str], environment: dict[str, str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *super().wrap(argv, environment)]


def python(module: str, *arguments: str) -> list[str]:
    """A module of this checkout, run by this interpreter."""
    return [sys.executable, "-m", module, *arguments]
