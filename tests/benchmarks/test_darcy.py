"""The Darcy benchmark on small fields that the test makes: both networks learn them alike, and what is measured is written and drawn."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import darcy
from data_pipeline.storage import read_json


def permeability(samples: int, n: int, generator: torch.Generator) -> Tensor:
    """Binary fields from a few random waves, (B, n, n)."""
    waves = torch.randn(samples, 3, 3, 2, generator=generator)
    points = torch.arange(n) / n
    phases = 2 * torch.pi * torch.arange(3)[:, None] * points
    basis = torch.stack((phases.cos(), phases.sin()))
    field = torch.einsum("bijp,pix,jy->bxy", waves, basis, basis[0] + basis[1])
    return (field > 0).float()


def pressure(a_Bxy: Tensor) -> Tensor:
    """-div(a grad u) = 1 with u = 0 outside, on a 5-point stencil; a is 3 and 12. One dense solve per sample."""
    samples, n = len(a_Bxy), a_Bxy.shape[-1]
    a = torch.nn.functional.pad((3 + 9 * a_Bxy).double(), (1, 1, 1, 1), mode="replicate")
    centre = a[:, 1:-1, 1:-1]
    matrix, number = torch.zeros(samples, n * n, n * n, dtype=torch.float64), torch.arange(n * n).view(n, n)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        other = a[:, 1 + dx : n + 1 + dx, 1 + dy : n + 1 + dy]
        flow = (2 * centre * other / (centre + other)).flatten(1) * n**2
        matrix[:, number.flatten(), number.flatten()] += flow
        x, y = torch.meshgrid(torch.arange(n) + dx, torch.arange(n) + dy, indexing="ij")
        inside = ((x >= 0) & (x < n) & (y >= 0) & (y < n)).flatten()
        matrix[:, number.flatten()[inside], (x * n + y).flatten()[inside]] -= flow[:, inside]
    return torch.linalg.solve(matrix, torch.ones(samples, n * n, dtype=torch.float64)).view(samples, n, n).float()


def fields(samples: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    a = permeability(samples, n, torch.Generator().manual_seed(seed))
    return a.unsqueeze(1), pressure(a).unsqueeze(1)


def test_both_learn_alike_and_the_results_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("neuralop.models", reason="neuraloperator is not installed: pip install neuraloperator==2.0.0")
    data = darcy.Darcy(fields(64, 8, 0), {8: fields(16, 8, 1), 16: fields(16, 16, 2)})
    setting = darcy.Setting(modes=8, hidden_channels=16, epochs=6, batch=16, learning_rate=1e-2, seeds=1)
    found = darcy.compare(setting, data)
    assert found["parameters"]["phial"] == found["parameters"]["neuraloperator"]
    assert found["steps"] == 6 * 4
    for name in darcy.SIDES:
        curve = found["curves"][0][name]["8"]
        assert curve[-1] < 0.75 * curve[0], f"{name}: {curve}"
    assert found["error_ratio"]["8"] < 1.3
    darcy.draw(found, tmp_path / "darcy.svg")
    assert "zero-shot" in (tmp_path / "darcy.svg").read_text()
    monkeypatch.setattr(darcy, "compare", lambda setting, data: found)
    monkeypatch.setattr(darcy, "read", lambda folder: data)
    (tmp_path / "darcy_train_16.pt").touch()
    darcy.main(["--data", str(tmp_path), "--out", str(tmp_path / "out.json"), "--plot", str(tmp_path / "plot.svg")])
    assert read_json(tmp_path / "out.json")["cpu_ratio"] == found["cpu_ratio"]


def test_from_the_same_weights_both_take_the_same_steps() -> None:
    """Loss by loss, until rounding is amplified."""
    pytest.importorskip("neuralop.models", reason="neuraloperator is not installed: pip install neuraloperator==2.0.0")
    from modeling.surrogate.losses import relative_h1

    setting = darcy.Setting(modes=8, hidden_channels=8, epochs=1, learning_rate=1e-3)
    sides = darcy.start(setting, 0)
    x, y = fields(16, 8, 0)
    for _ in range(10):
        losses = [relative_h1(one.model(x), 10 * y).sum() for one in sides.values()]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=0)
        for one in sides.values():
            darcy.step(one, x, 10 * y)


def test_missing_data_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    darcy.main(["--data", str(tmp_path), "--out", str(tmp_path / "out.json")])
    assert "skipped: no darcy_train_16.pt" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
