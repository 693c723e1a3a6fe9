"""Small tables of numbers on the device where they are needed."""

from functools import cache

import torch
from torch import Tensor


def constant(values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values as a tensor, which must not be written to.

    On an accelerator it is kept: copying host memory there makes the host wait for all the work it has queued, in every pass anew.
    """
    if device.type == "cpu" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    return held(values, dtype, device)


@cache
def held(values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once per process; not as an inference tensor, which later training could not use."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
