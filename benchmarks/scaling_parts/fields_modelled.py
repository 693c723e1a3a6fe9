"""The Fourier neural operator of 3.2 billion variables on 768 GPUs: ranks of it run for real, and weak scaling up to it by the model."""

from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

from benchmarks.scaling_parts.gpu_model import FIELD_FRACTION, H200, NODE, Traffic, gather_seconds
from benchmarks.scaling_parts.launch import apart
from benchmarks.scaling_parts.rank_alone import run_rank
from modeling.errors import ModelError
from modeling.parallel.fourier_plan import FourierPlan, plan_fourier
from modeling.parallel.partition import grid_tiles
from modeling.surrogate.config import FNOConfig

# Grid of GPUs per number of GPUs; the last is that of arXiv 2204.01205's 768.
GRIDS = {
    1: (1, 1, 1),
    2: (2, 1, 1),
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (4, 2, 2),
    32: (4, 4, 2),
    64: (4, 4, 4),
    128: (8, 4, 4),
    256: (8, 8, 4),
    512: (8, 8, 8),
    768: (12, 8, 8),
}
LOCAL = (64, 64, 64, 16)  # points of one GPU's part: 4,194,304
CHANNELS, LAYERS = 8, 4  # so wide that two ranks, run at a time, fit into 14 GB
MODES_PER_BLOCK = 4  # modes grow with the field, as in that paper's weak scaling; of time all 9 are kept


def network(modes: tuple[int, ...], channels: int = CHANNELS, layers: int = LAYERS) -> FNOConfig:
    return FNOConfig(modes=modes, in_channels=1, out_channels=1, hidden_channels=channels, num_layers=layers)


def field(grid: tuple[int, int, int], local: tuple[int, ...] = LOCAL) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The whole field's points and modes."""
    sizes = (*(length * parts for length, parts in zip(local[:3], grid, strict=True)), local[3])
    return sizes, (*(MODES_PER_BLOCK * parts for parts in grid), local[3])


def pencils(grid: tuple[int, int, int], local: tuple[int, ...] = LOCAL) -> FourierPlan:
    """Every GPU a block of the field; the parts of one dim after another move to the dim that has just become whole."""
    sizes, modes = field(grid, local)
    a, b, c = grid
    stages = [(a, b, c, 1), (a, b, 1, c), (a, 1, b, c), (1, a, b, c)]
    return FourierPlan(sizes, modes, tuple(dict.fromkeys(stages)))


def traffic(plan: FourierPlan, rank: int, channels: int) -> list[Traffic]:
    """What a rank sends in each transpose of one spectral convolution, there and back, float32 fields."""
    found = []
    for stage in range(len(plan.grids) - 1):
        before = grid_tiles(plan.lengths(stage), plan.grids[stage])
        after = grid_tiles(plan.lengths(stage), plan.grids[stage + 1])
        for held, wanted in ((before[rank], after), (after[rank], before)):
            sizes = {other: held.meet(box).volume * channels * 8 for other, box in enumerate(wanted) if other != rank}
            inside = [size for other, size in sizes.items() if size and other // NODE == rank // NODE]
            outside = [size for other, size in sizes.items() if size and other // NODE != rank // NODE]
            found.append(Traffic(len(inside), sum(inside), len(outside), sum(outside)))
    return found


def communication_seconds(plan: FourierPlan, channels: int, layers: int, shared: int, at_once: bool) -> float:
    """Of a training step, for the slowest of the first, middle and last rank: transposes of all layers there and back, forward and
    backward, and the sum of the `shared` weights' gradients."""
    ranks = {0, plan.ranks // 2, plan.ranks - 1}
    moves = max(sum(one.seconds(at_once) for one in traffic(plan, rank, channels)) for rank in ranks)
    return 2 * layers * moves + 2 * gather_seconds(4 * shared, plan.ranks)


def compute_seconds(simulated: dict[str, Any]) -> float:
    """What takes longer: the operations at float32's peak, or the memory traffic at a part of the bandwidth."""
    return max(simulated["flops"] / H200.float32, simulated["memory_traffic_bytes"] / (FIELD_FRACTION * H200.memory_bandwidth))


def run_ranks(quick: bool) -> dict[str, Any]:
    """First, middle and last rank of the 768 at their exact shapes, and the middle one of the planner's own layout."""
    grid, local, channels, layers = ((4, 2, 2), (8, 8, 4, 4), 3, 2) if quick else (GRIDS[768], LOCAL, CHANNELS, LAYERS)
    plan = pencils(grid, local)
    config = network(plan.modes, channels, layers)
    middle = plan.ranks // 2
    sizes, modes = field(grid, local)
    chosen = plan_fourier(sizes, modes, plan.ranks)
    jobs = [(rank, plan) for rank in (0, middle, plan.ranks - 1)] + [(middle, chosen)]
    # Two at a time, as there are two cores; each in a process of its own.
    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(lambda job: apart(run_rank, *job, config), jobs))
    return {
        "kind": "simulated",
        "gpus": plan.ranks,
        "variables": prod(sizes),
        "sizes": list(sizes),
        "modes": list(modes),
        "channels": channels,
        "layers": layers,
        "pencils": {"plan": str(plan), "ranks": ranks[:3]},
        "planned": {"plan": str(chosen), "ranks": ranks[3:]},
    }


def model_fields(simulated: dict[str, Any]) -> dict[str, Any]:
    """Weak scaling with the block of a GPU fixed, from the operations and traffic of the simulated middle rank."""
    channels, layers = simulated["channels"], simulated["layers"]
    middle = simulated["pencils"]["ranks"][1]
    compute = compute_seconds(middle)
    shared = middle["parameters_here"]
    rows = []
    for gpus, grid in GRIDS.items():
        for layout in ("pencils", "fewest bytes"):
            try:
                plan = pencils(grid) if layout == "pencils" else plan_fourier(*field(grid), gpus)
            except ModelError as error:
                rows.append({"kind": "modelled", "gpus": gpus, "layout": layout, "impossible": str(error)})
                continue
            row = {"kind": "modelled", "gpus": gpus, "layout": layout, "grids": [list(one) for one in plan.grids], "compute_s": compute}
            for name, at_once in (("messages_one_after_another", False), ("messages_at_once", True)):
                seconds = communication_seconds(plan, channels, layers, shared, at_once)
                row[name] = {"communication_s": seconds, "efficiency": round(compute / (compute + seconds), 4)}
            rows.append(row)
    return {
        "kind": "modelled",
        "points_per_gpu": LOCAL,
        "compute": "operations and memory traffic of the simulated middle rank on the constants' GPU, the same for every number of GPUs",
        "communication": "transposes by the boxes of first, middle and last rank, and the sum of the shared weights' gradients",
        "rows": rows,
    }
