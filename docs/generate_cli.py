"""Writes docs/cli.md from the verbs' own help: `python docs/generate_cli.py` (`--stdout` to print it). A test compares the two."""

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/cli.md"
HEAD = """# The command

Written by `python docs/generate_cli.py` from the verbs themselves; change a verb, then run that again.

Every verb that takes RECIPE takes a TOML file or the name of one in `recipes/`, `--out` for the run folder and `--set section.key=value`
for single settings. Bad input is one line, `phial: ...`, and exit code 2; Ctrl-C is 130.
"""


def help_of(words: list[str]) -> str:
    """The help text of a verb, 80 columns wide on every terminal."""
    phial = importlib.import_module("phial")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        phial.run([*words, "--help"])
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())


def words_of(verb: str) -> list[list[str]]:
    """The words that call a verb, or where it has sub-verbs, those of each, however deep."""
    phial = importlib.import_module("phial")
    typer = importlib.import_module("typer")
    group: Any = typer.main.get_command(phial.app)

    def calls(words: list[str], command: Any) -> list[list[str]]:
        below = getattr(command, "commands", {})
        return [call for name, sub in below.items() for call in calls([*words, name], sub)] or [words]

    return calls([verb], group.get_command(typer.Context(group), verb))


def page() -> str:
    """The whole page."""
    os.environ.update(COLUMNS="80", NO_COLOR="1", TERM="dumb")
    phial = importlib.import_module("phial")
    blocks = [f"## phial {' '.join(words)}\n\n```\n{help_of(words)}\n```\n" for verb in phial.VERBS for words in words_of(verb)]
    return "\n".join([HEAD, *blocks])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["--stdout"]:
        sys.stdout.write(page())
        raise SystemExit
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: written\n")
