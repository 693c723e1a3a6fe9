"""bfloat16 weights to compute with, float32 masters to learn with.

Per parameter: 2 bytes of weight, 4 of master, 4 of gradient summed in float32, 8 of moments. An update below bfloat16's resolution (1 part
in 256) would be lost on the weight itself; on the master it counts (arXiv 1710.03740, section 3.1).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class MasterWeights:
    """Replaces a module's float32 parameters by bfloat16 copies; the parameters it had become their masters.

    An optimizer built on the module before goes on updating the masters. Gradients of the copies are added up in the masters' `grad` as
    the backward pass makes them; `publish` rounds the masters into the copies after an update.
    """

    def __init__(self, module: nn.Module) -> None:
        self.masters: list[Tensor] = []
        self.copies: list[Tensor] = []
        for owner in module.modules():
            for name, master in list(owner.named_parameters(recurse=False)):
                copy = nn.Parameter(master.detach().to(torch.bfloat16))
                copy.register_post_accumulate_grad_hook(hand_over(master))
                setattr(owner, name, copy)
                self.masters.append(master)
                self.copies.append(copy)

    @torch.no_grad()
    def publish(self) -> None:
        """The copies become the rounded masters."""
        for copy, master in zip(self.copies, self.masters, strict=True):
            copy.copy_(master)


def hand_over(master: nn.Parameter) -> Callable[[Tensor], None]:
    """A hook that adds a copy's gradient to the master's in float32 and drops it."""

    def hook(copy: Tensor) -> None:
        assert copy.grad is not None  # torch calls this once the gradient is there
        if master.grad is None:
            master.grad = copy.grad.float()
        else:
            master.grad.add_(copy.grad)
        copy.grad = None

    return hook
