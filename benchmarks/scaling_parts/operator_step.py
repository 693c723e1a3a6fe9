"""A Fourier neural operator over ranks, forward and backward: weak and strong scaling of the model-parallel field."""

# B batch, C channels, x the field's dims on this rank.

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.scaling_parts.allocator import keep_freed_memory
from benchmarks.scaling_parts.clock import Step, Turn, one_rank, scaled, take_turns
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import ALONE, Group, Mesh
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO


@dataclass(frozen=True)
class Size:
    """The one-rank field, its modes, and the network's width."""

    sizes: tuple[int, ...]
    modes: tuple[int, ...]
    channels: int
    layers: int
    rounds: int

    def config(self, modes: tuple[int, ...]) -> FNOConfig:
        return FNOConfig(modes=modes, in_channels=1, out_channels=1, hidden_channels=self.channels, num_layers=self.layers)

    def doubled(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Twice as long along the first dim."""
        return (2 * lengths[0], *lengths[1:])


# 3-D and time, as in the runs of arXiv 2204.01205 and 2211.12709, with their width of 20 channels.
FULL = Size(sizes=(32, 32, 32, 8), modes=(8, 8, 8, 6), channels=20, layers=4, rounds=20)
QUICK = Size(sizes=(8, 6, 4, 4), modes=(4, 4, 2, 4), channels=4, layers=2, rounds=3)


def field_step(size: Size, group: Group, sizes: tuple[int, ...], modes: tuple[int, ...]) -> tuple[Step, FNO]:
    """Forward and backward for a given gradient, of this rank's part of one field."""
    torch.manual_seed(0)
    network = FNO(size.config(modes), sizes=sizes, group=group)
    box = network.plan.field_boxes[group.index]
    x_BCx = torch.randn(1, 1, *box.size)
    dy_BCx = torch.randn(1, 1, *box.size)
    parameters = list(network.parameters())

    def step() -> None:
        for one in parameters:
            one.grad = None
        network(x_BCx).backward(dy_BCx)

    return step, network


def measure_field(size: Size) -> tuple[dict[str, Any], dict[str, Any]]:
    """On each of two ranks: the seconds of all steps; the plans, and the bytes that this rank sends in one step."""
    keep_freed_memory()
    group = Mesh({"field": 2}).group("field")
    step, _ = field_step(size, ALONE, size.sizes, size.modes)
    turns = {"field, solo": Turn(step, first_only=True), "field, pair": Turn(step)}
    facts: dict[str, Any] = {}
    cases = {
        "weak, modes grow": (size.doubled(size.sizes), size.doubled(size.modes)),
        "weak, modes fixed": (size.doubled(size.sizes), size.modes),
        "strong": (size.sizes, size.modes),
    }
    for name, (sizes, modes) in cases.items():
        step, network = field_step(size, group, sizes, modes)
        with recording() as ledger:
            step()
        facts[name] = {"sizes": sizes, "modes": modes, "plan": str(network.plan), "bytes_sent_per_rank_and_step": ledger.total().bytes}
        turns[name] = Turn(step)
    return take_turns(turns, size.rounds), facts


def summarise_field(size: Size, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """The figures of both ranks' measurements."""
    ranks, facts = [taken for taken, _ in results], results[0][1]
    return {
        "size": vars(size) | {"batch": 1, "dtype": "float32", "threads_per_rank": 1},
        "one_rank": {"field": one_rank(ranks, "field")},
        "ways": {name: facts[name] | scaled(ranks, "field", name, 0.5 if name == "strong" else 1.0) for name in facts},
    }
