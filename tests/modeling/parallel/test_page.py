"""The code of docs/parallel.md runs, on one rank and on several, and its proofs can fail."""

import re
from pathlib import Path

import pytest

from tests.ranks import Ranks

PAGE = Path(__file__).resolve().parents[3] / "docs" / "parallel.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(change: tuple[str, str] | None = None) -> None:
    """All blocks one after another, as a reader would type them; `change` replaces a piece of the code."""
    code = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert change is None or change[0] in code
    exec(compile(code if change is None else code.replace(*change), str(PAGE), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_page_runs(ranks: Ranks, count: int) -> None:
    ranks(count, run_page)


def fails(change: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        run_page(change)


@pytest.mark.parametrize(
    "change",
    [
        ("self.spread(self.mix(mean_B1D))", "self.mix(mean_B1D)"),
        ("self.add(x_BtD.sum(1, keepdim=True))", "x_BtD.sum(1, keepdim=True)"),
        ("line, line[::-1]", "line, line"),
    ],
)
def test_a_layer_that_forgets_an_operator_is_noticed(ranks: Ranks, change: tuple[str, str]) -> None:
    ranks(2, fails, change)
