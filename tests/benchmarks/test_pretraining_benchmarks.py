"""The scripts behind pretraining's figures: the plan's page is what they write, and their own checks can fail."""

from pathlib import Path

import pytest

from benchmarks import engine, plan, soak

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_the_plans_of_now() -> None:
    text = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    for name, wanted in (("plan", plan.table(plan.plans())), ("gpu", plan.measured_table())):
        begin, end = plan.MARKS[name]
        assert text.split(begin)[1].split(end)[0].strip() == wanted, "run: python -m benchmarks.plan"


def test_ratios_are_of_the_same_round() -> None:
    seconds = {"phial-1": [1.0, 4.0, 3.0], "deepspeed-1": [2.0, 4.0, 2.0], "ddp": [1.0, 2.0, 3.0]}
    assert engine.ratios(seconds) == {"phial-1 / deepspeed-1": 1.0, "phial-1 / ddp": 1.0}
    assert engine.spread({"a": [1.0, 2.0], "b": [1.1, 2.5]}) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_small_soak(tmp_path: Path) -> None:
    """A few kills end as none; a soak whose runs differ says so."""
    soak.main(["--kills", "6", "--seeds", "1", "--out", str(tmp_path / "soak.json")])
    assert '"all_equal": true' in (tmp_path / "soak.json").read_text()


def test_a_soak_that_differs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    def wrong(corpus: Path, out: Path, seed: int, kills: int) -> list[int]:
        (out / "model").mkdir(parents=True)
        (out / "metrics.jsonl").touch()
        save_file({"w": torch.full((2,), float(seed))}, out / "model" / "model.safetensors")
        return [-9, 0]

    monkeypatch.setattr(soak, "killed_run", wrong)
    with pytest.raises(SystemExit, match="ended otherwise"):
        soak.main(["--kills", "2", "--seeds", "1", "--out", str(tmp_path / "soak.json")])
