"""The front door: every verb explains itself, nothing heavy is loaded for that, and bad usage is one line."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import phial

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "trl", "deepspeed", "onnxruntime", "onnx_ir", "datasets", "numpy", "pyarrow", "trafilatura", "matplotlib")


def words_of(verb: str) -> list[list[str]]:
    """The words that call a verb, and those of its sub-verbs."""
    group: Any = typer.main.get_command(phial.app)
    command = group.get_command(typer.Context(group), verb)
    return [[verb], *([verb, sub] for sub in getattr(command, "commands", {}))]


def phial_process(*arguments: str, probe: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs the front door in a process of its own; with `probe`, the heavy modules that it loaded are the last line of stderr."""
    after = f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)" if probe else ""
    code = f"import json, sys, phial\ntry:\n    sys.argv[1:] = {list(arguments)!r}\n    phial.main()\nfinally:\n    {after or 'pass'}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("verb", phial.VERBS)
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in words_of(verb):
        assert phial.run([*words, "--help"]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"Usage: phial {' '.join(words)} ")
        assert len(shown.out.splitlines()) > 3
        assert shown.err == ""


def test_help_loads_nothing_heavy() -> None:
    done = phial_process("--help", probe=True)
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in phial.VERBS)
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_the_probe_can_fail() -> None:
    code = f"import json, sys, numpy\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout) == ["numpy"]


def test_importing_any_commands_file_loads_no_network_of_weights() -> None:
    modules = sorted({target.split(":")[0] for target, _ in phial.VERBS.values()})
    heavy = ("torch", "transformers", "trl", "deepspeed", "onnxruntime", "onnx_ir")
    code = f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no verb 'nosuch'; there is demo, data"),
        (["data", "nosuch"], "nosuch"),
        (["data", "tokenize"], "RECIPE"),
        (["data", "tokenize", "demo", "--wrong"], "--wrong"),
        (["data", "tokenize", "no-such-recipe.toml"], "no such recipe"),
        (["data", "tokenize", "demo", "--set", "nosection.a=1"], "no section [nosection]"),
    ],
)
def test_bad_usage_is_one_line_and_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert phial.run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("phial: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert shown.out == ""


def test_the_process_itself_ends_with_2() -> None:
    done = phial_process("nosuch")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_json_callers_get_the_line_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert phial.run(["data", "tokenize", "no-such-recipe.toml", "--json"]) == 2
    assert "no such recipe" in json.loads(capsys.readouterr().out)["error"]


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    phial.run([])
    shown = capsys.readouterr()
    assert "Usage: phial" in shown.out + shown.err
    assert "demo" in shown.out + shown.err


def broken_verb(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def verb() -> None:
        raise error

    monkeypatch.setitem(phial.VERBS, "demo", ("phial:test_verb", "raises"))
    monkeypatch.setattr(phial, "test_verb", verb, raising=False)


def test_interrupt_is_130_without_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken_verb(monkeypatch, KeyboardInterrupt())
    assert phial.run(["demo"]) == 130
    assert capsys.readouterr().err == "phial: interrupted; what was complete before is kept\n"


@pytest.mark.parametrize("number", sorted({errno.EBUSY, *phial.STORAGE_ERRORS}))
def test_a_full_or_forbidden_disk_is_one_line(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken_verb(monkeypatch, OSError(number, "x", "/some/file"))
    assert phial.run(["demo"]) == 2
    assert capsys.readouterr().err.startswith("phial: /some/file: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory; a smaller model"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"),
            "for 4096 bytes more;",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "for 2.50 GiB more;"),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_verb(monkeypatch, error)
    assert phial.run(["demo"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_torchs_own_words_for_too_little_memory_are_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    for size in (1 << 60, 1 << 62):  # more than any machine has, and more than can be counted in bytes
        with pytest.raises(RuntimeError) as caught:
            torch.empty(size, dtype=torch.float32)
        broken_verb(monkeypatch, caught.value)
        assert phial.run(["demo"]) == 2
        assert "not enough memory" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_verb(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        phial.run(["demo"])
    broken_verb(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        phial.run(["demo"])


def test_the_page_of_the_command_is_up_to_date() -> None:
    code = "import runpy, sys\nsys.modules['torch'] = None\nsys.argv = ['generate_cli.py', '--stdout']\n"
    code += "sys.path.insert(0, '.')\nrunpy.run_path('docs/generate_cli.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == (ROOT / "docs/cli.md").read_text(encoding="utf-8"), "run: python docs/generate_cli.py"
