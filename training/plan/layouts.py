"""All ways to lay a run over so many accelerators: which cannot be, and why, and which is modelled fastest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import sqrt

from data_pipeline.errors import InputError
from training.plan.devices import Device
from training.plan.memory import Memory, memory_of
from training.plan.shape import Shape
from training.plan.speed import KNOWN_MFU, Speed, speed_of

# Of a device's memory, what its driver, libraries, the allocator's gaps and collectives' own buffers take.
KEPT_FREE = 0.08


@dataclass(frozen=True)
class Candidate:
    """A layout that can be."""

    shape: Shape
    memory: Memory
    speed: Speed

    @property
    def tokens_per_s(self) -> float:
        """The middle of the modelled interval (geometric)."""
        slow, fast = self.speed.tokens_per_s(self.shape.tokens_per_step)
        return sqrt(slow * fast)


@dataclass(frozen=True)
class Refused:
    """A layout that cannot be, and why."""

    shape: Shape
    reason: str


def judge(shape: Shape, device: Device, gpus_per_node: int, mfu: tuple[float, float] = KNOWN_MFU) -> Candidate | Refused:
    """One layout."""
    try:
        shape.check()
    except InputError as error:
        return Refused(shape, str(error))
    if shape.tensor > gpus_per_node:
        return Refused(shape, f"tensor {shape.tensor} would cross nodes of {gpus_per_node} GPUs: sums in every layer over the network")
    memory, room = memory_of(shape), int(device.memory_bytes * (1 - KEPT_FREE))
    if memory.total > room:
        return Refused(shape, f"{memory.total / 2**30:.1f} GiB where {device.name} has {room / 2**30:.1f} GiB to use")
    return Candidate(shape, memory, speed_of(shape, device, gpus_per_node, mfu))


def all_layouts(shape: Shape, gpus_per_node: int) -> Iterator[Shape]:
    """Every layout of the same run.

    Context ranks where rows are long enough to need them; as many rows at a time as a power of two that divides a rank's rows.
    """
    contexts = [1, 2, 4, 8] if shape.context > 8192 else [1]
    ways = ["ulysses"] + (["halo"] if shape.config.window_keys and shape.config.window_keys < shape.context else [])
    tensors = [size for size in (1, 2, 4, 8, 16) if size <= gpus_per_node]
    stages = (1, 2, 3) if shape.offload else (0, 1, 2, 3)
    for stage, tensor, context, recompute in product(stages, tensors, contexts, ("none", "selective", "full")):
        for way, micro in product(ways if context > 1 else ways[:1], (1, 2, 4, 8, 16)):
            laid = replace(
                shape, zero_stage=stage, tensor=tensor, context_ranks=context, context_way=way, micro_rows=micro, recompute=recompute
            )
            if micro == 1 or not laid.data or (laid.rows_per_step // laid.data) % micro == 0:
                yield replace(laid, sequence=tensor > 1)


def best_layouts(
    shape: Shape, device: Device, gpus_per_node: int, mfu: tuple[float, float] = KNOWN_MFU
) -> tuple[list[Candidate], list[Refused]]:
    """Those that can be, fastest first (of equals the one with more memory left, then the simpler), and those that cannot."""
    judged = [judge(one, device, gpus_per_node, mfu) for one in all_layouts(shape, gpus_per_node)]
    good = [one for one in judged if isinstance(one, Candidate)]
    good.sort(
        key=lambda one: (-round(one.tokens_per_s, 3), one.shape.tensor * one.shape.context_ranks, one.shape.zero_stage, one.memory.total)
    )
    return good, [one for one in judged if isinstance(one, Refused)]
