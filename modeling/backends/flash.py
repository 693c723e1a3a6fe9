"""The flash-attn package over documents laid end to end: FlashAttention 3 on Hopper where installed, else FlashAttention 2."""

# N query heads, K key/value heads, H features per head, L tokens laid end to end, D documents.

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from modeling.backends.varlen import Varlen
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.visible import Visible

# Tried in this order: `flash_attn_interface` is FlashAttention 3, which is built from source and runs on Hopper alone.
PACKAGES = ("flash_attn_interface", "flash_attn")
HOPPER = 9  # the major compute capability


class Flash(Varlen):
    """As `Varlen`, with the package's kernels."""

    name = "flash"

    def __init__(self, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
        super().__init__(config, visible, device)
        self.kernel = flash_kernel(torch.cuda.get_device_capability(device)[0])

    def attend(self, q_LNH: Tensor, k_LKH: Tensor, v_LKH: Tensor, bounds_D: Tensor, longest: int, scale: float) -> Tensor:
        return self.kernel(
            q_LNH, k_LKH, v_LKH, bounds_D, bounds_D, longest, longest, softmax_scale=scale, causal=True, window_size=self.window
        )


@cache
def flash_kernel(major: int) -> Callable[..., Tensor]:
    """`flash_attn_varlen_func` of the package that serves a device of this major compute capability."""
    for package in PACKAGES[0 if major == HOPPER else 1 :]:
        try:
            return import_module(package).flash_attn_varlen_func
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
    raise ModelError("attention backend 'flash' needs the package flash-attn: pip install -e \".[flash]\". Use varlen, flex or sdpa")
