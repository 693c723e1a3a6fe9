"""An alpha-beta model of GPUs in nodes: what a message costs, and what collectives of many cost. Kind of every figure from here: modelled.

A message of n bytes takes alpha + n / beta seconds. Nothing overlaps with computing, and no two links are used at once, so that real
machines can be faster; congestion, stragglers and input are left out, so that they can be slower. Nothing here was measured.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any


@dataclass(frozen=True)
class Link:
    """Seconds per message, bytes per second of one GPU one way."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class Gpu:
    """One GPU, in SI units: operations and bytes per second, bytes of memory."""

    bf16: float
    float32: float
    memory_bandwidth: float
    memory: float


NODE = 8
# NVIDIA H200 SXM data sheet: 900 GB/s NVLink both ways, 4.8 TB/s, 141 GB, 1,979 Tflop/s bfloat16 with sparsity, 67 Tflop/s float32.
H200 = Gpu(bf16=989.5e12, float32=67e12, memory_bandwidth=4.8e12, memory=141e9)
# Latencies: NCCL's own tuning model (src/graph/tuning.cc of 2.18 to 2.20), ring algorithm, protocol Simple, in microseconds: NVLink 3.4,
# network 14.0. Network: one ConnectX-7 port of 400 Gbit/s per GPU, as DGX H200's user guide has it.
NVLINK = Link(alpha=3.4e-6, beta=450e9)
NETWORK = Link(alpha=14.0e-6, beta=50e9)
# Assumptions, ours: what part of the peak a decoder's step reaches, and what part of the memory bandwidth a field's layers.
DECODER_FRACTION = 0.4
FIELD_FRACTION = 0.6


def constants() -> dict[str, Any]:
    """Everything that the model assumes, as the results file carries it."""
    return {
        "node_gpus": NODE,
        "gpu": {"name": "H200 SXM, by its data sheet", **asdict(H200)},
        "nvlink": {**asdict(NVLINK), "source": "data sheet; NCCL src/graph/tuning.cc, ring, Simple"},
        "network": {**asdict(NETWORK), "source": "400 Gbit/s per GPU, DGX H200 user guide; NCCL src/graph/tuning.cc, ring, Simple"},
        "decoder_fraction_of_bf16_peak": DECODER_FRACTION,
        "field_fraction_of_memory_bandwidth": FIELD_FRACTION,
        "overlap": "none",
    }


def gather_seconds(whole_bytes: float, gpus: int) -> float:
    """An all-gather of parts to `whole_bytes` on every GPU, or the reduce-scatter that is its adjoint.

    Within a node 7/8 of it comes over NVLink. Over m nodes every GPU first gathers its eighth over its own network port.
    """
    inside, nodes = min(gpus, NODE), ceil(gpus / NODE)
    seconds = (inside - 1) * NVLINK.alpha + whole_bytes * (inside - 1) / inside / NVLINK.beta
    return seconds + (nodes - 1) * NETWORK.alpha + whole_bytes / inside * (nodes - 1) / nodes / NETWORK.beta


def gather_across_seconds(whole_bytes: float, members: int) -> float:
    """The same over GPUs of as many nodes, one in each."""
    return (members - 1) * NETWORK.alpha + whole_bytes * (members - 1) / members / NETWORK.beta


@dataclass(frozen=True)
class Traffic:
    """Messages and bytes that one GPU sends within its node and out of it."""

    messages_inside: int = 0
    bytes_inside: float = 0.0
    messages_outside: int = 0
    bytes_outside: float = 0.0

    def seconds(self, at_once: bool) -> float:
        """`at_once`: all messages of a link are under way together and its latency is paid once; else they go one after another."""
        total = 0.0
        for link, messages, size in (
            (NVLINK, self.messages_inside, self.bytes_inside),
            (NETWORK, self.messages_outside, self.bytes_outside),
        ):
            total += link.alpha * (min(1, messages) if at_once else messages) + size / link.beta
        return total
