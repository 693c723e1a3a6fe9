"""A plan: everything that is known of a run before it begins, as plain values."""

from dataclasses import asdict
from typing import Any

from modeling.config import DecoderConfig
from modeling.counts import count_parameters, flops_per_token
from training.plan.devices import Device
from training.plan.layouts import Candidate, Refused, best_layouts, judge
from training.plan.shape import Shape, local_parameters, uneven_heads
from training.plan.speed import KNOWN_MFU
from training.plan.traffic import traffic_of

SHOWN = 5


def make_plan(
    asked: Shape, tokens: int, device: Device, nodes: int, gpus_per_node: int, mfu: tuple[float, float] = KNOWN_MFU
) -> dict[str, Any]:
    """The run's exact numbers, the recipe's own layout judged, the best ones, and why others cannot be."""
    config = asked.config
    good, refused = best_layouts(asked, device, gpus_per_node, mfu)
    own = judge(asked, device, gpus_per_node, mfu)
    uneven = {tensor: uneven_heads(config, tensor) for tensor in (2, 4, 8, 16) if tensor <= gpus_per_node}
    return {
        "model": model_facts(config, asked.context),
        "run": {"tokens": tokens, "tokens_per_step": asked.tokens_per_step, "steps": tokens // asked.tokens_per_step},
        "machine": {"nodes": nodes, "gpus_per_node": gpus_per_node, "gpus": nodes * gpus_per_node, **asdict(device)},
        "mfu": list(mfu),
        "asked": described(own, tokens, device),
        "best": [described(one, tokens, device) for one in distinct(good)[:SHOWN]],
        "uneven_heads": {str(tensor): text for tensor, text in uneven.items() if text},
        "refused": reasons(refused),
        "speeds": "modelled",
    }


def model_facts(config: DecoderConfig, context: int) -> dict[str, Any]:
    """Exact counts."""
    return {
        "parameters": count_parameters(config),
        "flops_per_token_causal": flops_per_token(config, context),
        "flops_per_token_full": flops_per_token(config, context, "full"),
        "context": context,
    }


def distinct(good: list[Candidate]) -> list[Candidate]:
    """The best of each way to stand: those that differ in rows at a time alone are one."""
    found: dict[tuple[Any, ...], Candidate] = {}
    for one in good:
        shape = one.shape
        found.setdefault((shape.zero_stage, shape.tensor, shape.context_ranks, shape.context_way, shape.recompute), one)
    return list(found.values())


def described(one: Candidate | Refused, tokens: int, device: Device) -> dict[str, Any]:
    """A layout with its bytes and its modelled speed, or with the reason why it cannot be."""
    shape = one.shape
    layout = {
        "zero_stage": shape.zero_stage,
        "tensor": shape.tensor,
        "context": shape.context_ranks,
        "context_way": shape.context_way,
        "sequence": shape.sequence,
        "data": shape.data,
        "micro_rows": shape.micro_rows,
        "recompute": shape.recompute,
        "precision": shape.precision,
    }
    if isinstance(one, Refused):
        return {"layout": layout, "refused": one.reason}
    slow, fast = one.speed.tokens_per_s(shape.tokens_per_step)
    gpus = shape.ranks
    return {
        "layout": layout | {"accumulation": shape.accumulation},
        "parameters_per_rank": max(local_parameters(shape.config, shape.tensor)),
        "memory": one.memory.by_kind(),
        "traffic": [asdict(transfer) for transfer in traffic_of(shape)],
        "step_s": list(one.speed.step_s),
        "tokens_per_s": [slow, fast],
        "tokens_per_s_per_gpu": [slow / gpus, fast / gpus],
        "mfu": [flops_per_token(shape.config, shape.context) * speed / gpus / device.bfloat16_flops for speed in (slow, fast)],
        "days": [tokens / speed / 86_400 for speed in (slow, fast)],
        "cost": [tokens / speed / 3600 * gpus * device.price_per_hour for speed in (slow, fast)],
    }


def reasons(refused: list[Refused]) -> list[dict[str, Any]]:
    """Why layouts cannot be, each reason once with how many it is of; of those without memory, the one that lacks least."""
    counted: dict[str, dict[str, Any]] = {}
    for one in refused:
        key = "memory" if " GiB where " in one.reason else one.reason
        known = counted.setdefault(key, {"reason": one.reason, "layouts": 0})
        known["layouts"] += 1
        known["least"] = key == "memory"
        if key == "memory" and needed(one.reason) < needed(known["reason"]):
            known["reason"] = one.reason
    return sorted(counted.values(), key=lambda one: -one["layouts"])


def needed(reason: str) -> float:
    return float(reason.split(" ", 1)[0])
