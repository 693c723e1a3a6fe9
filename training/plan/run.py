"""The plan of a run that begins now, as its page holds it against what happens."""

from dataclasses import asdict
from typing import Any

from modeling.config import DecoderConfig
from modeling.counts import count_parameters
from training.plan.devices import Device
from training.plan.memory import memory_of
from training.plan.shape import Shape
from training.plan.speed import speed_of
from training.plan.traffic import traffic_of
from training.recipe import LayoutRecipe, PretrainRecipe, rows_at_a_time


def shape_of(config: DecoderConfig, recipe: PretrainRecipe, layout: LayoutRecipe, ranks: int, precision: str) -> Shape:
    """A decoder in training as the recipe lays it over so many ranks; `precision` is what "auto" has become."""
    per_rank = max(1, recipe.rows_per_step // layout.data_ranks(ranks))  # a plan of rows that cannot be dealt is refused by its reader
    return Shape(
        config=config,
        context=recipe.context,
        rows_per_step=recipe.rows_per_step,
        ranks=ranks,
        zero_stage=layout.zero_stage,
        tensor=layout.tensor,
        context_ranks=layout.context,
        context_way=layout.context_way,
        sequence=layout.sequence,
        micro_rows=rows_at_a_time(per_rank, recipe.micro_rows),
        recompute=recipe.recompute,
        precision=precision,
        offload=layout.offload == "cpu",
        compiled=recipe.compile,
    )


def plan_run(shape: Shape, loss_tokens: int, device: Device | None, ranks_per_node: int) -> dict[str, Any]:
    """Exact bytes of the most loaded rank, and tokens/s modelled where the accelerator is a known one (null where it is not)."""
    found: dict[str, Any] = {
        "parameters": count_parameters(shape.config),
        "memory": memory_of(shape, loss_tokens).by_kind(),
        "traffic": [asdict(transfer) for transfer in traffic_of(shape)],
        "device": device.name if device else None,
        "tokens_per_s": None,
    }
    if device is not None:
        found["tokens_per_s"] = list(speed_of(shape, device, ranks_per_node).tokens_per_s(shape.tokens_per_step))
    return found
