"""AdamW and its groups: what decays, and what learns at which part of the rate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from modeling.decoder import Decoder
from modeling.mup import ParameterScales, parameter_scales
from training.recipe import PretrainRecipe


class GatedAdamW(torch.optim.AdamW):
    """AdamW that asks before an update. DeepSpeed calls it with its own flat parameters after the norm is known and copies what it finds
    then, so an update that is left out here changes neither weights nor moments, whatever wraps it."""

    gate: Callable[[], bool] | None = None

    def step(self, closure: Any = None) -> Any:
        return super().step(closure) if self.gate is None or self.gate() else None


def build_optimizer(model: Decoder, recipe: PretrainRecipe) -> GatedAdamW:
    """Fused AdamW (Loshchilov and Hutter, 2019) over groups of weights that decay, weights that do not, and under muP hidden matrices.

    Projection matrices and an untied head decay. Norm weights do not, since a scale has no reason to be small, nor do biases and token
    embeddings: a rare token's row would shrink between its visits. A group's `rate_scale` multiplies the rate, see `modeling.mup`.
    """
    groups = build_groups(model, recipe.weight_decay)
    for group in groups:
        group["lr"] = recipe.learning_rate * group["rate_scale"]
    return GatedAdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, fused=True)


def build_groups(model: Decoder, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups, none empty: those that decay by their factors in the model's order, then those that do not.

    `modeling.mup` scales no parameter that does not decay.
    """
    scales = parameter_scales(model)
    by_id = {id(parameter): scales[name] for name, parameter in model.named_parameters()}
    decayed, kept = split_by_decay(model)
    by_scales: dict[ParameterScales, list[nn.Parameter]] = {}
    for parameter in decayed:
        one = by_id[id(parameter)]
        by_scales.setdefault(ParameterScales(rate=one.rate, decay=one.decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": weight_decay * one.decay, "rate_scale": one.rate} for one, parameters in by_scales.items()
    ]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0, "rate_scale": 1.0})
    return groups


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that decay and those that do not, each in the model's order."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else kept).append(parameter)
    return decayed, kept


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next update; each group takes its part of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
