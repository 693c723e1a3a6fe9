"""Optional float8 matrix products in the layers, through torchao, on GPUs that have them (Hopper, Ada and later).

Weights, gradients and everything outside the products keep their dtype: torchao scales and rounds both sides of each product, forward and
backward, on the fly (arXiv 2209.05433 for the two formats). Embedding, norms and head are left alone.
"""

import dataclasses
import importlib.util

import torch
from torch import nn

from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.parallel.split_linear import PartLinear

# tensorwise: one scale per matrix, fastest. rowwise: one per row, rounded to a power of two, closer to bfloat16.
RECIPES = ("tensorwise", "rowwise")
INSTALL = 'pip install -e ".[float8]"'
MULTIPLE = 16  # the kernels' alignment, in features
CAPABILITY = (8, 9)


def use_float8(decoder: Decoder, recipe: str = "tensorwise", emulate: bool = False) -> Decoder:
    """Converts the layers' linear maps in place and returns the decoder; parameter names stay.

    `emulate` rounds as float8 does but multiplies in the wider dtype, on any device: for tests of the numbers, not for speed. Refuses
    another recipe, sizes that are no multiples of 16, a machine without torchao, and a device without float8 products. To train, a pass
    must have a multiple of 16 tokens too, over which a weight's gradient sums; "rowwise" gives bfloat16 alone.
    """
    if recipe not in RECIPES:
        raise ModelError(f"no float8 recipe {recipe!r}; there is {', '.join(RECIPES)}")
    check_sizes(decoder)
    if importlib.util.find_spec("torchao") is None:
        raise ModelError(f"float8 needs torchao, which is not installed: {INSTALL}")
    if not emulate:
        check_device(next(decoder.parameters()).device)
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # type: ignore[import-not-found]

    config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=emulate)
    pieces = {name: module.pieces for name, module in decoder.layers.named_modules() if isinstance(module, PartLinear)}
    convert_to_float8_training(decoder.layers, config=config)
    for name, held in pieces.items():
        decoder.layers.get_submodule(name).pieces = held  # type: ignore[assignment]
    return decoder


def check_sizes(decoder: Decoder) -> None:
    """Refuses the first linear map of a layer whose sides the kernels cannot take."""
    for name, module in decoder.layers.named_modules(prefix="layers"):
        if isinstance(module, nn.Linear) and (module.in_features % MULTIPLE or module.out_features % MULTIPLE):
            raise ModelError(
                f"float8 needs sizes that are multiples of {MULTIPLE}; {name} maps {module.in_features} to {module.out_features} features"
            )


def check_device(device: torch.device) -> None:
    """Refuses a device without float8 products; the decoder must be on its device already."""
    if device.type != "cuda":
        raise ModelError(f"float8 needs a CUDA device of compute capability 8.9 or more; the decoder is on {device.type}")
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        raise ModelError(f"float8 needs a CUDA device of compute capability 8.9 or more; {device} has {capability[0]}.{capability[1]}")
