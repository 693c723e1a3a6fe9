"""TensorBoard where it is wanted, and the line where its package is missing."""

import sys
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from training.board import Board


class Writer:
    """What torch's SummaryWriter is asked for."""

    def __init__(self, folder: str) -> None:
        self.folder, self.told, self.closed = folder, [], False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_rows_become_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = type(sys)("torch.utils.tensorboard")
    made.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", made)
    board = Board(tmp_path)
    board.add({"step": 7, "loss": 2.5, "mfu_causal": None, "rows_read": {"web": 28}, "phase": "one"})
    board.close()
    assert board.writer.told == [("loss", 2.5, 7), ("rows_read/web", 28, 7)]
    assert board.writer.closed


def test_without_a_folder_it_does_nothing() -> None:
    board = Board(None)
    board.add({"step": 1, "loss": 1.0})
    board.close()


def test_a_missing_package_has_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r'needs the package tensorboard: pip install -e "\.\[tensorboard\]"'):
        Board(tmp_path)
