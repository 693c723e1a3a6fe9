"""Our Fourier neural operator against neuraloperator's on Darcy flow: python -m benchmarks.darcy [--epochs 15] [--seeds 3] [--data FOLDER]

Both learn the pressure from the permeability, 1,000 samples of 16 x 16, and are tested on 50 others at 16 x 16 and, never having seen that
grid, at 32 x 32. Equal: parameters (602,977: modes 16 x 16, 32 hidden channels, 4 layers), batches in their order, steps, AdamW with
learning rate 5e-3 and weight decay 1e-4, cosine schedule, H1 loss, one thread, and the weights they start from: those that neuraloperator
draws under the seed. They take turns, a step each, and CPU seconds are taken around each step (forward, loss, backward, optimizer); the
ratio is of two steps on the same batch, and its median is reported. Errors are relative L2, the mean over samples. Equal starts are equal
runs but for rounding, which training amplifies: over seeds a final error varies by some per cent. Writes benchmarks/results/darcy.json
and docs/images/darcy.svg.
"""

# B samples, C channels, x points of both dims.

import argparse
import os
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from modeling.parallel.weights import fill
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO
from modeling.surrogate.losses import relative_h1, relative_l2
from modeling.surrogate.neuraloperator_weights import from_neuraloperator

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared/data/darcy"
RESULTS = ROOT / "benchmarks/results/darcy.json"
PLOT = ROOT / "docs/images/darcy.svg"
SIDES = ("phial", "neuraloperator")


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    modes: int = 16
    hidden_channels: int = 32
    epochs: int = 15
    batch: int = 32
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    seeds: int = 3


@dataclass(frozen=True)
class Darcy:
    """Training fields and, by points per side, test fields: permeability and pressure, (B, 1, x)."""

    train: tuple[Tensor, Tensor]
    tests: dict[int, tuple[Tensor, Tensor]]


@dataclass
class Side:
    """One network under training; `seconds` of every step, `errors` by points per side after every epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    seconds: list[float] = field(default_factory=list)
    errors: dict[int, list[float]] = field(default_factory=dict)


def read(folder: Path) -> Darcy:
    """neuraloperator's files."""

    def fields(name: str) -> tuple[Tensor, Tensor]:
        held = torch.load(folder / name, weights_only=True)
        return held["x"].float().unsqueeze(1), held["y"].float().unsqueeze(1)

    return Darcy(fields("darcy_train_16.pt"), {size: fields(f"darcy_test_{size}.pt") for size in (16, 32)})


def build(setting: Setting, seed: int) -> dict[str, nn.Module]:
    """Both networks with the same weights, drawn by neuraloperator."""
    sizes: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "hidden_channels": setting.hidden_channels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO as Theirs
    torch.manual_seed(seed)
    theirs = Theirs(n_modes=(setting.modes, setting.modes), **sizes)
    ours = FNO(FNOConfig(modes=(setting.modes, setting.modes), **sizes))
    fill(ours, from_neuraloperator(ours.config, theirs.state_dict()))
    return {"phial": ours, "neuraloperator": theirs}


def start(setting: Setting, seed: int) -> dict[str, Side]:
    """Both networks with their optimizers."""
    found = {}
    for name, model in build(setting, seed).items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate, weight_decay=setting.weight_decay)
        found[name] = Side(model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.epochs))
    return found


def step(one: Side, x_B1x: Tensor, y_B1x: Tensor) -> None:
    """One training step, timed."""
    began = time.process_time()
    one.optimizer.zero_grad()
    relative_h1(one.model(x_B1x), y_B1x).sum().backward()
    one.optimizer.step()
    one.seconds.append(time.process_time() - began)


def train(setting: Setting, data: Darcy, seed: int) -> dict[str, Side]:
    """Both sides through all epochs, in turn."""
    sides = start(setting, seed)
    x, y = data.train
    mean, std = y.mean(), y.std()
    order = torch.Generator().manual_seed(seed)
    for epoch in range(setting.epochs):
        for number, rows in enumerate(torch.randperm(len(x), generator=order).split(setting.batch)):
            # Who goes first changes, since the second finds the batch in the cache.
            for name in SIDES if number % 2 else SIDES[::-1]:
                step(sides[name], x[rows], (y[rows] - mean) / std)
        for one in sides.values():
            one.schedule.step()
            with torch.no_grad():
                for size, (given, truth) in data.tests.items():
                    error = relative_l2(one.model(given) * std + mean, truth).mean().item()
                    one.errors.setdefault(size, []).append(round(error, 5))
        shown = ", ".join(f"{name} " + " ".join(f"{one.errors[size][-1]:.4f}" for size in data.tests) for name, one in sides.items())
        print(f"seed {seed}, epoch {epoch + 1}: relative L2 at {' and '.join(map(str, data.tests))} points: {shown}", flush=True)
    return sides


def compare(setting: Setting, data: Darcy) -> dict[str, Any]:
    """All seeds: errors, CPU seconds per step, and their ratios, ours over theirs."""
    runs = [train(setting, data, seed) for seed in range(setting.seeds)]
    ours, theirs = ([run[name] for run in runs] for name in SIDES)
    pairs = [a / b for run in runs for a, b in zip(run["phial"].seconds[2:], run["neuraloperator"].seconds[2:], strict=True)]
    last = {name: {size: statistics.mean(run[name].errors[size][-1] for run in runs) for size in data.tests} for name in SIDES}
    return {
        "parameters": {name: sum(one.numel() for one in runs[0][name].model.parameters()) for name in SIDES},
        "steps": len(ours[0].seconds),
        "relative_l2": {name: {str(size): round(error, 5) for size, error in last[name].items()} for name in SIDES},
        "error_ratio": {str(size): round(last["phial"][size] / last["neuraloperator"][size], 4) for size in data.tests},
        "cpu_seconds_per_step": {
            name: round(statistics.median(t for one in group for t in one.seconds[2:]), 5)
            for name, group in zip(SIDES, (ours, theirs), strict=True)
        },
        "cpu_ratio": round(statistics.median(pairs), 4),
        "curves": [{name: {str(size): run[name].errors[size] for size in data.tests} for name in SIDES} for run in runs],
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Test errors by epoch, mean over seeds with their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "darcy", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
        # Equal starts lie on each other: ours are lines, theirs dots on them.
        for size, colour in zip(found["relative_l2"][SIDES[0]], ("tab:blue", "tab:orange"), strict=False):
            for name, mark in zip(SIDES, ("-", "o"), strict=True):
                curves = [run[name][size] for run in found["curves"]]
                epochs = range(1, len(curves[0]) + 1)
                middle = [statistics.mean(at) for at in zip(*curves, strict=True)]
                label = f"{name}, {size} x {size}{' (zero-shot)' if colour == 'tab:orange' else ''}"
                axes.plot(epochs, middle, mark, color=colour, markerfacecolor="none", label=label)
                low, high = ([edge(at) for at in zip(*curves, strict=True)] for edge in (min, max))
                axes.fill_between(epochs, low, high, color=colour, alpha=0.08, linewidth=0)
        seeds = len(found["curves"])
        title = f"Darcy flow: equal networks from equal weights, mean and range of {seeds} seed{'s' * (seeds > 1)}"
        axes.set(xlabel="epoch", ylabel="relative L2 error on the test set", ylim=(0, None), title=title)
        axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=Setting.epochs)
    parser.add_argument("--seeds", type=int, default=Setting.seeds)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    asked = parser.parse_args(arguments)
    if not (asked.data / "darcy_train_16.pt").exists():
        print(f"skipped: no darcy_train_16.pt in {asked.data}; neuraloperator's repository has it (--data FOLDER)", file=sys.stderr)
        return
    torch.set_num_threads(1)
    setting = Setting(epochs=asked.epochs, seeds=asked.seeds)
    found = compare(setting, read(asked.data))
    load = {"load_average": round(os.getloadavg()[0], 2), "threads": 1}
    write_json(asked.out, {**provenance("torch", "neuraloperator"), **load, "setting": asdict(setting), **found})
    draw(found, asked.plot)
    print({name: found[name] for name in ("relative_l2", "error_ratio", "cpu_seconds_per_step", "cpu_ratio")})


if __name__ == "__main__":
    main()
