"""The kernels that compute attention, behind one function.

A backend is made once per forward pass from what its queries see, and called once per layer:

    attend = start_pass("sdpa", config, visible, device)
    y_BNTH = attend(q_BNTH, k_BKSH, v_BKSH, sparse, scale)

`sparse` says whether the layer is blocksparse. A backend that cannot do what was asked refuses by name; none replaces another.

| backend | documents | window | blocksparse | left padding | cache | CPU          | CUDA               |
|---------|-----------|--------|-------------|--------------|-------|--------------|--------------------|
| sdpa    | yes       | yes    | yes         | yes          | yes   | yes          | yes                |
| eager   | yes       | yes    | yes         | yes          | yes   | yes          | yes                |
| flex    | yes       | yes    | yes         | yes          | no    | forward only | yes                |
| varlen  | yes       | yes    | no          | no           | no    | no           | bfloat16, float16  |
| flash   | yes       | yes    | no          | no           | no    | no           | bfloat16, float16  |

"cache" is new tokens behind tokens held; filling an empty cache is computed by all. `flash` needs the package flash-attn.
"""

from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.visible import Visible


class Attend(Protocol):
    """Attention of one pass: (B, N, T, H) queries over (B, K, S, H) keys and values to (B, N, T, H)."""

    def __call__(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float, /) -> Tensor: ...


# Name -> module and class: `Class(config, visible, device) -> Attend`. Imported when first used, since some need what is not installed.
BACKENDS = {
    "sdpa": ("modeling.backends.sdpa", "Sdpa"),
    "eager": ("modeling.backends.eager", "Eager"),
    "flex": ("modeling.backends.flex", "Flex"),
    "varlen": ("modeling.backends.varlen", "Varlen"),
    "flash": ("modeling.backends.flash", "Flash"),
}


def check_backend(name: str) -> str:
    """The name, where there is such a backend; never a silent replacement."""
    if name not in BACKENDS:
        raise ModelError(f"no attention backend {name!r}; there is {', '.join(BACKENDS)}")
    return name


def start_pass(name: str, config: DecoderConfig, visible: Visible, device: torch.device) -> Attend:
    """The backend, ready for the layers of one forward pass; what it cannot do is refused here, before any layer has run."""
    module, kind = BACKENDS[check_backend(name)]
    return getattr(import_module(module), kind)(config, visible, device)
