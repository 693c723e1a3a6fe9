"""AdamW and its weight-decay groups."""

import torch
from torch import nn

from training.recipe import PretrainRecipe

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, recipe: PretrainRecipe) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter, 2019) over two groups: weights that decay and weights that do not.

    Projection matrices and an untied head decay. Norm weights do not, since a scale has no reason to be small, nor do token embeddings:
    a rare token's row would shrink between its visits.
    """
    decayed, kept = split_by_decay(model)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that decay and those that do not, each in the model's order."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else kept).append(parameter)
    return decayed, kept


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next update, for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
