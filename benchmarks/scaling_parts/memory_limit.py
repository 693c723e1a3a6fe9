"""A limit on memory under which one rank cannot train a Fourier neural operator and two ranks can. Kind of every figure: measured.

Each rank limits itself by RLIMIT_DATA, which counts what a process may write to and shares with no other, whether it has touched it or not,
and then trains. The same training without a limit says that the losses are the right ones.
"""

# B batch, C channels, x the field's dims on this rank.

import resource
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.scaling_parts.allocator import return_freed_memory
from benchmarks.scaling_parts.launch import on_ranks
from data_pipeline.provenance import peak_rss_bytes
from modeling.parallel.mesh import Mesh
from modeling.parallel.partition import whole
from modeling.parallel.sums import SumReduce
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO

MIB = 2**20


@dataclass(frozen=True)
class Training:
    """`limit_mib` more than what a rank holds before it makes the network."""

    sizes: tuple[int, ...]
    modes: tuple[int, ...]
    channels: int
    layers: int
    steps: int
    limit_mib: int


FULL = Training(sizes=(40, 40, 40, 8), modes=(12, 12, 12, 6), channels=20, layers=4, steps=5, limit_mib=1024)
QUICK = Training(sizes=(64, 64, 32), modes=(4, 4, 4), channels=8, layers=2, steps=2, limit_mib=66)


def private_bytes() -> int:
    """What RLIMIT_DATA counts of this process now (VmData in /proc)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))


def train(training: Training, limited: bool) -> dict[str, Any]:
    """On each rank: losses of the steps, or what it died of."""
    return_freed_memory()
    group = Mesh({"field": dist.get_world_size()}).group("field")
    losses(
        replace(training, sizes=(8,) * len(training.sizes), modes=(2,) * len(training.sizes), steps=1), group
    )  # loads what torch loads late
    before = private_bytes()
    if limited:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (before + training.limit_mib * MIB, hard))
    found: dict[str, Any] = {"limit_bytes": before + training.limit_mib * MIB if limited else None, "held_before_bytes": before}
    try:
        found["losses"] = losses(training, group)
    except (MemoryError, RuntimeError) as error:
        text = (str(error) or "no more memory").splitlines()[0]
        if not isinstance(error, MemoryError) and "can't allocate memory" not in text:
            raise
        found["died_of"] = f"{type(error).__name__}: {text[text.find('DefaultCPUAllocator') if 'DefaultCPUAllocator' in text else 0 :]}"
    return found | {"peak_rss_bytes": peak_rss_bytes()}


def losses(training: Training, group: Any) -> list[float]:
    """Of AdamW steps that learn to smooth a random field: the mean squared error over the whole field."""
    torch.manual_seed(0)
    config = FNOConfig(modes=training.modes, in_channels=1, out_channels=1, hidden_channels=training.channels, num_layers=training.layers)
    network = FNO(config, sizes=training.sizes, group=group)
    box = network.plan.field_boxes[group.index]
    field_x = torch.randn(training.sizes)
    smooth_x = sum(field_x.roll(step, 0) for step in range(-2, 3)) / 5
    cut = box.inside(whole(training.sizes))
    x_BCx, y_BCx = (one[cut][None, None].clone() for one in (field_x, torch.as_tensor(smooth_x)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    total, found = SumReduce(group), []
    for _ in range(training.steps):
        optimizer.zero_grad()
        loss = total((network(x_BCx) - y_BCx).square().sum() / field_x.numel())
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def measure_limit(training: Training) -> dict[str, Any]:
    """One rank under the limit, two ranks under the limit, and one rank without."""
    one = on_ranks(1, train, training, True)[0]
    two = on_ranks(2, train, training, True)
    free = on_ranks(1, train, training, False)[0]
    row = {
        "kind": "measured",
        "training": vars(training),
        "limit": "RLIMIT_DATA of every rank, bytes",
        "limit_bytes": max(one["limit_bytes"], *(rank["limit_bytes"] for rank in two)),
        "one_rank": one,
        "two_ranks": two,
        "one_rank_without_limit": free,
    }
    if "losses" in free and all("losses" in rank for rank in two):
        pairs = zip(free["losses"], two[0]["losses"], strict=True)
        row["largest_relative_difference_of_losses"] = max(abs(a - b) / abs(a) for a, b in pairs)
    return row
