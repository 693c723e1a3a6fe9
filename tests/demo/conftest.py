"""One undisturbed run of the tiny chain for all tests here; each that changes something works on a copy."""

import shutil
from pathlib import Path

import pytest

from tests import tiny_chain


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chain.write_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `phial demo`; what it printed lies beside it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done = tiny_chain.phial("demo", "--recipe", recipe, "--out", run)
    assert done.returncode == 0, done.stderr[-3000:]
    (run.parent / "printed.txt").write_text(done.stdout)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
