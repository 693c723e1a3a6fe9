"""The learning rate of every step: linear warm-up, then cosine or warm-up-stable-decay. Pure functions of the step."""

import math

from training.recipe import PretrainRecipe


def learning_rate(recipe: PretrainRecipe, step: int, num_steps: int) -> float:
    """The rate of update `step` (counted from 0) in a run of `num_steps` updates.

    Warm-up rises linearly and reaches `learning_rate` at update `warmup_steps`. Cosine (Loshchilov and Hutter, 2017) falls from there to
    `min_ratio` of it at the last update. wsd (warm-up, stable, decay; Hu et al., MiniCPM, 2024) stays level and falls linearly to
    `min_ratio` over the last `decay_fraction` of the updates.
    """
    return recipe.learning_rate * factor(recipe, step, num_steps)


def factor(recipe: PretrainRecipe, step: int, num_steps: int) -> float:
    """The rate of an update as a part of the peak rate, 0 to 1."""
    warmup = min(recipe.warmup_steps, num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "cosine":
        done = progress(step, warmup, num_steps)
        return recipe.min_ratio + (1 - recipe.min_ratio) * (1 + math.cos(math.pi * done)) / 2
    start = max(warmup, num_steps - round(recipe.decay_fraction * num_steps))
    if step < start:
        return 1.0
    return 1.0 - (1 - recipe.min_ratio) * progress(step, start - 1, num_steps)


def progress(step: int, start: int, num_steps: int) -> float:
    """How far `step` is from `start` (0) to the last update of the run (1)."""
    return (step - start) / max(1, num_steps - 1 - start)
