"""The machines of a run: `name slots=N` a line, as DeepSpeed's hostfiles and MPI's have it."""

import re
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.errors import InputError


@dataclass(frozen=True)
class Host:
    """A machine and how many ranks it runs."""

    name: str
    slots: int


def read_hosts(path: str | Path) -> list[Host]:
    """The hosts of a file; empty lines and what follows a # are passed over, a wrong line is named by its number."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"--hosts {path}: no such file; a line `name slots=N` for every machine is needed") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--hosts {path}: cannot be read as text ({error.__class__.__name__})") from error
    found: dict[str, Host] = {}
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"(\S+)\s+slots\s*=\s*([1-9]\d{0,3})", text)
        if match is None:
            raise InputError(f"{path}, line {number}: `name slots=N` is needed, N from 1 to 9999, got {text!r:.60}")
        if match[1] in found:
            raise InputError(f"{path}, line {number}: {match[1]} is there already; give each machine once, with all its slots")
        found[match[1]] = Host(match[1], int(match[2]))
    if not found:
        raise InputError(f"{path}: no host; a line `name slots=N` for every machine is needed")
    return list(found.values())
