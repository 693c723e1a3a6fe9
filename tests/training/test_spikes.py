"""Which updates are left out, and what a run does when leaving them out does not help."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from training.batches import MicroBatch
from training.events import read_events, record
from training.metrics import read_metrics
from training.recipe import ModelRecipe, PretrainRecipe
from training.replicated import ReplicatedEngine
from training.spikes import SpikeWatch, contains
from training.trainer import pretrain

PHASES = [{"name": "one", "steps": 40, "weights": {"web": 1.0}, "max_epochs": 100}]
SETTINGS = {"phases": PHASES, "context": 32, "rows_per_step": 4, "learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1, "threads": 1}
MODEL = ModelRecipe(preset="tiny")


def feed(watch: SpikeWatch, values: list[float]) -> list[bool]:
    return [watch.accept(value, 1.0 + value / 10) for value in values]


def test_a_step_far_above_the_last_ones_is_a_spike() -> None:
    watch = SpikeWatch(4.0, 16)
    assert all(feed(watch, [3.0 + 0.01 * (number % 5) for number in range(12)]))
    assert feed(watch, [3.3, 3.02, 9.0, math.nan, 3.01]) == [False, True, False, False, True]
    assert watch.in_a_row == 0
    assert not watch.accept(3.0, 50.0), "the norm alone is enough"
    assert watch.accept(1.0, 1.1), "falling is no spike"


def test_without_a_history_everything_finite_is_accepted() -> None:
    assert feed(SpikeWatch(1.0, 16), [1.0, 100.0, math.inf, 1.0]) == [True, True, False, True]


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), max_size=80), st.integers(0, 80))
def test_a_resumed_watch_decides_alike(values: list[float], cut: int) -> None:
    whole = SpikeWatch(2.0, 8)
    expected = feed(whole, values)
    first = SpikeWatch(2.0, 8)
    begun = feed(first, values[:cut])
    again = SpikeWatch(2.0, 8, json.loads(json.dumps(first.state())))
    assert begun + feed(again, values[cut:]) == expected
    assert again.state() == whole.state()


def test_ranges() -> None:
    assert [step for step in range(11) if contains([(1, 4), (2, 4), (5, 9)], step)] == [1, 2, 3, 5, 6, 7, 8]


def train(corpus: Path, out: Path, **settings) -> dict:
    recipe = PretrainRecipe(**{**SETTINGS, **settings})
    return pretrain(recipe, MODEL, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=out, seed=5)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> list[int]:
    """Some steps' losses are ten times as large; returns the numbers of all calls."""
    true_share = ReplicatedEngine.share_of_loss
    true_step = ReplicatedEngine.step
    calls: list[int] = []

    def counted(self, batch: list[MicroBatch], rate: float, accept=None):
        calls.append(len(calls))
        return true_step(self, batch, rate, accept)

    def share(self, micro: MicroBatch, total: float):
        return true_share(self, micro, total) * (10 if calls[-1] in steps else 1)

    monkeypatch.setattr(ReplicatedEngine, "step", counted)
    monkeypatch.setattr(ReplicatedEngine, "share_of_loss", share)
    return calls


def test_a_spike_is_left_out_and_recorded(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {20})
    train(corpus, tmp_path, spike_sigmas=20.0, spike_window=16)
    spikes = [event for event in read_events(tmp_path) if event["kind"] == "spike"]
    assert [event["step"] for event in spikes] == [21]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["loss"] is None] == [21]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_spikes_in_a_row_go_back_to_a_checkpoint_and_past_their_rows(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = poison(monkeypatch, {24, 25, 26})
    settings = {"spike_sigmas": 20.0, "spike_window": 16, "rewind_after": 3, "checkpoint_every": 10}
    result = train(corpus, tmp_path, **settings)
    events = read_events(tmp_path)
    assert [(event["step"], event["to"]) for event in events if event["kind"] == "rewound"] == [(27, 20)]
    assert json.loads((tmp_path / "skipped.json").read_text()) == [[20, 27]]
    assert len(calls) == 27 + 13  # steps 21 to 27 are passed over
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert [row["step"] for row in rows if row["loss"] is None] == list(range(21, 28))
    assert math.isfinite(result["loss"])


@pytest.mark.parametrize("most", [1, 2, 3])
def test_too_many_rewinds_stop_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Each goes back to the same checkpoint, so that what they pass over overlaps."""
    poison(monkeypatch, set(range(24, 1000)))
    settings = {"spike_sigmas": 20.0, "spike_window": 16, "rewind_after": 3, "checkpoint_every": 10, "max_rewinds": most}
    with pytest.raises(InputError, match=rf"3 spikes in a row, after {most} rewinds \(max_rewinds = {most}\); stopped"):
        train(corpus, tmp_path, **settings)


def test_events_outlive_a_torn_line(tmp_path: Path) -> None:
    record(tmp_path, "started", 0, ranks=2)
    with open(tmp_path / "events.jsonl", "a") as stream:
        stream.write('{"kind": "spi')
    assert [event["kind"] for event in read_events(tmp_path)] == ["started"]
