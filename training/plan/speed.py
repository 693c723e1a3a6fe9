"""A step's time, modelled: arithmetic at a share of the peak that published runs and one of ours reached, and bytes over bandwidths."""

from dataclasses import dataclass

from modeling.counts import flops_per_token
from training.plan.devices import Device
from training.plan.shape import Shape, uneven_heads
from training.plan.traffic import Transfer, traffic_of

# Model FLOPs of dense decoders of 1 to 14 billion parameters over the peak, bfloat16: from 33 % (torchtitan, eager, 8B, H100) over 48 %
# (OLMo-core, 7B, H100) to what our trainer reached on one H200 with phi3-mini, compiled, rows of one document
# (benchmarks/results/gpu-trainer-phi3-mini-4k.json). llm-foundry's tables and Megatron's README lie between.
KNOWN_MFU = (0.33, 0.52)
SELECTIVE_AGAIN = 0.04  # norms, activations and rotation made again, of a step's time


@dataclass(frozen=True)
class Speed:
    """Seconds of a step, at worst and at best, and what follows. Everything here is modelled."""

    step_s: tuple[float, float]  # slow, fast
    compute_s: tuple[float, float]
    traffic_s: float
    exposed_s: tuple[float, float]

    def tokens_per_s(self, tokens_per_step: int) -> tuple[float, float]:
        return tokens_per_step / self.step_s[0], tokens_per_step / self.step_s[1]


def speed_of(shape: Shape, device: Device, gpus_per_node: int, mfu: tuple[float, float] = KNOWN_MFU) -> Speed:
    """At worst no byte is hidden behind arithmetic, at best all that may be."""
    flops = flops_per_token(shape.config, shape.context) * shape.tokens_per_step / shape.ranks
    load = 1.0
    if uneven_heads(shape.config, shape.tensor):
        load = -(-shape.config.num_heads // shape.tensor) * shape.tensor / shape.config.num_heads
    again = {"none": 0.0, "selective": SELECTIVE_AGAIN, "full": 1 / 3}[shape.recompute]
    compute = tuple(flops * load * (1 + again) / (device.bfloat16_flops * share) for share in mfu)
    transfers = traffic_of(shape)
    hidden = sum(seconds(one, shape, device, gpus_per_node) for one in transfers if one.hidden)
    open_ = sum(seconds(one, shape, device, gpus_per_node) for one in transfers if not one.hidden)
    # What may hide does so behind the backward pass, two thirds of the arithmetic.
    exposed = (hidden + open_, max(0.0, hidden - compute[1] * 2 / 3) + open_)
    return Speed(
        step_s=(compute[0] + exposed[0], compute[1] + exposed[1]),
        compute_s=(compute[0], compute[1]),
        traffic_s=hidden + open_,
        exposed_s=exposed,
    )


def seconds(transfer: Transfer, shape: Shape, device: Device, gpus_per_node: int) -> float:
    """By the slowest link that the axis crosses; "tensor" counts fastest, so its ranks are neighbours on a node."""
    reach = {"tensor": shape.tensor, "context": shape.tensor * shape.context_ranks, "same": shape.ranks}[transfer.axis]
    link = device.node_bytes_per_s if reach <= gpus_per_node else device.net_bytes_per_s
    return transfer.bytes / link
