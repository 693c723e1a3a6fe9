"""What a terminal shows, and what a file gets instead."""

import io

import pytest
from rich.console import Console

from training import progress
from training.progress import TrainingProgress, curve, panel

ROW = {
    "step": 50,
    "phase": "one",
    "tokens": 51_200,
    "loss": 2.34567,
    "learning_rate": 3e-4,
    "grad_norm": 0.5,
    "tokens_per_s": 12_345.6,
    "mfu_causal": 0.41,
    "mfu_full": 0.45,
    "memory_bytes": 3 * 2**30,
    "left_out": 2,
    "rows_read": {"web": 150, "synthetic": 50},
    "seconds_by_part": {"step": 9.0, "data": 1.0},
}


def shown(row: dict) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(panel(row, [3.0, 2.5, 2.4]))
    return out.getvalue()


def test_the_panel_has_everything_of_the_row() -> None:
    text = shown(ROW)
    parts = ["2.346  █▂▁", "0.500", "learning rate 0.0003", "12,346 tokens/s", "MFU 41.0% causal, 45.0% full", "3.00 GiB"]
    parts += ["phase one, 51,200 tokens; rows of web 150, synthetic 50", "step 90%, data 10%", "2 updates, as spikes"]
    assert [part for part in parts if part not in text] == []


def test_what_nobody_knows_is_not_shown() -> None:
    text = shown(ROW | {"loss": None, "mfu_causal": None, "mfu_full": None, "left_out": 0})
    assert "MFU" not in text
    assert "left out" not in text
    assert text.split("\n")[0].split() == ["loss", "-", "█▂▁"]


def test_a_curve() -> None:
    assert curve([]) == curve([1.0]) == ""
    assert curve([0.0, 7.0, 3.0]) == "▁█▄"
    assert curve([1.0, 1.0]) == "▁▁"


def test_a_terminal_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "Console", lambda **settings: Console(**settings, force_terminal=True, width=100))
    with TrainingProgress(100, 0, out) as shown:
        shown.advance(50)
        shown.show(ROW)
        shown.say("a line of its own")
    assert "50/100" in out.getvalue()
    assert "12,346 tokens/s" in out.getvalue()
    assert "a line of its own" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_a_file_gets_few_plain_lines() -> None:
    out = io.StringIO()
    with TrainingProgress(100, 0, out) as shown:
        for step in range(1, 101):
            shown.advance(step)
            shown.show(ROW | {"step": step})
    lines = out.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[-1] == "pretrain: step 100/100 (one), loss 2.346, 12,346 tokens/s, about 0 s left"
    assert "\x1b[" not in out.getvalue()
