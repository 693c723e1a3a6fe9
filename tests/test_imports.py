"""Rooms import only the rooms that docs/architecture.md lets them import."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data_pipeline", "modeling", "training", "alignment", "export", "eval")
ABOVE_ROOMS = ("phial", "demo", "demo_stages", "tests", "benchmarks", "docs")  # may import every room, and no room may import them
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def read_plan() -> dict[str, set[str]]:
    """Room -> the rooms it may import, from the block under "One direction"."""
    block = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## One direction")[1].split("```")[1]
    plan: dict[str, set[str]] = {}
    for room in re.findall(r"(\w+)\s+imports nothing of ours", block):
        plan[room] = set()
    for room, others in re.findall(r"^(\w+)\s+-> ([\w, ]+)$", block, flags=re.MULTILINE):
        plan[room] = set(others.split(", "))
    return plan


PLAN = read_plan()


def faults(room: str, path: Path, source: str) -> list[str]:
    """What a file of a room does against the plan."""
    found = [f"{path}: {part} says nothing about what is in it" for part in (path.stem, *path.parent.parts) if part in FORBIDDEN_NAMES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"{path}, line {node.lineno}: a relative import")
            continue
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and isinstance(node.args[0], ast.Constant):
            names = [str(node.args[0].value)]
        for name in names:
            top = name.split(".")[0]
            if (top in ROOMS and top != room and top not in PLAN[room]) or top in ABOVE_ROOMS:
                found.append(f"{path}, line {node.lineno}: {room} must not import {top}")
    return found


def test_the_plan_names_every_room() -> None:
    assert set(PLAN) == set(ROOMS)
    assert PLAN["data_pipeline"] == PLAN["modeling"] == set()
    assert all(others <= set(ROOMS) for others in PLAN.values())


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_runs_back(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = [fault for path in files for fault in faults(room, path.relative_to(ROOT), path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("room", "path", "source", "said"),
    [
        ("modeling", "modeling/bad.py", "import training.trainer", "modeling must not import training"),
        (
            "modeling",
            "modeling/bad.py",
            "def late():\n    from data_pipeline.errors import InputError",
            "modeling must not import data_pipeline",
        ),
        ("export", "export/bad.py", "import importlib\nimportlib.import_module('eval.scoring')", "export must not import eval"),
        ("eval", "eval/bad.py", "from phial import main", "eval must not import phial"),
        ("training", "training/bad.py", "from . import trainer", "relative import"),
        ("training", "training/utils.py", "", "utils says nothing"),
        ("training", "training/common/loop.py", "", "common says nothing"),
    ],
)
def test_a_bad_file_is_caught(room: str, path: str, source: str, said: str) -> None:
    assert any(said in fault for fault in faults(room, Path(path), source))


def test_a_good_file_is_not() -> None:
    assert faults("training", Path("training/good.py"), "import torch\nfrom modeling.decoder import Decoder\nimport training.loop") == []


def test_every_test_folder_mirrors_a_room() -> None:
    folders = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*") if path.is_dir() and any(path.glob("test_*.py"))}
    strays = [str(folder) for folder in folders if folder != Path(".") and not (ROOT / folder).is_dir() and folder.parts[0] in ROOMS]
    assert strays == []
