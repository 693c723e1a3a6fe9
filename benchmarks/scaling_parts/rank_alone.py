"""One rank of a large Fourier neural operator run for real beside ranks that do not exist: its memory, operations and bytes. Simulated.

The step is the network's own, forward and backward, at the exact shapes of that rank. Operations and memory traffic are counted as torch
executes them, call by call.
"""

# B batch, C channels, x the field's dims on this rank.

import time
from math import log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.scaling_parts.absent import beside_absent_ranks
from data_pipeline.provenance import peak_rss_bytes
from modeling.parallel.fourier_plan import FourierPlan
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import Mesh
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO

aten = torch.ops.aten
PRODUCTS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
FFTS = {aten._fft_c2c.default, aten._fft_r2c.default, aten._fft_c2r.default}


class Counter(TorchDispatchMode):
    """Floating-point operations of matrix products and FFTs, and the bytes that all calls read and write, each call for itself.

    A complex product counts 8, a complex FFT of n points 5 n log2 n, a real one half. Views read nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        self.bytes += sum(one.numel() * one.element_size() for one in inputs + outputs)
        if func in PRODUCTS:
            left = inputs[PRODUCTS[func]]
            self.flops += (8 if left.is_complex() else 2) * outputs[0].numel() * left.shape[-1]
        elif func in FFTS:
            self.flops += fft_flops(inputs[0], outputs[0], args[1])
        return result


def fft_flops(x: Tensor, y: Tensor, dims: list[int]) -> float:
    """5 N log2 N of the transform's N points, halved where one side is real; times the transforms beside it."""
    real = not (x.is_complex() and y.is_complex())
    longer = x if x.numel() >= y.numel() else y
    points = prod(longer.shape[dim] for dim in dims)
    return (0.5 if real else 1.0) * 5 * longer.numel() * log2(max(2, points))


def run_rank(rank: int, plan: FourierPlan, config: FNOConfig) -> dict[str, Any]:
    """Called in a process of its own, so that its peak of memory is this rank's."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with beside_absent_ranks(rank, plan.ranks):
        group = Mesh({"field": plan.ranks}).group("field")
        before = peak_rss_bytes()
        network = FNO(config, sizes=plan.sizes, group=group, plan=plan)
        box = plan.field_boxes[rank]
        x_BCx, dy_BCx = torch.randn(1, config.in_channels, *box.size), torch.randn(1, config.out_channels, *box.size)
        began = time.perf_counter()
        with recording() as ledger, Counter() as counter:
            network(x_BCx).backward(dy_BCx)
        seconds = time.perf_counter() - began
    moved, expected = ledger.by_operator().get("Repartition"), expected_bytes(rank, plan, config)
    assert (moved.bytes if moved else 0) == expected, f"rank {rank} sent {moved} where its plan says {expected} bytes"
    total = ledger.total()
    return {
        "kind": "simulated",
        "rank": rank,
        "field_part": list(box.size),
        "modes_part": list(plan.mode_boxes[rank].size),
        "parameters_here": sum(one.numel() for one in network.parameters()),
        "peak_bytes_of_step": peak_rss_bytes() - before,
        "flops": counter.flops,
        "memory_traffic_bytes": counter.bytes,
        "sent_bytes": total.bytes,
        "sent_messages": total.messages,
        "seconds_on_one_core_while_counting": round(seconds, 2),
    }


def expected_bytes(rank: int, plan: FourierPlan, config: FNOConfig) -> int:
    """Transposes of all layers, forward and backward, by the plan's closed form."""
    wide = config.hidden_channels
    return 2 * config.num_layers * plan.bytes_sent(rank, in_channels=wide, out_channels=wide)
