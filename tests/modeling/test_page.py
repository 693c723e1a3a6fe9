"""The code of docs/modeling.md runs as it stands, and the decoder that it makes can chat."""

import re
from pathlib import Path

import pytest

from export.decoder_runner import open_session

PAGE = Path(__file__).resolve().parents[2] / "docs" / "modeling.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "page"})
    session = open_session(tmp_path / "partner")
    turns = [{"role": "user", "content": "What is green?"}]
    assert session.generate(turns, 8) == open_session(tmp_path / "partner").generate(turns, 8)
