"""bfloat16 weights to compute with, float32 masters to learn with.

An update below bfloat16's resolution (1 part in 256) would be lost on the weight itself; on the master it counts (arXiv 1710.03740,
section 3.1). Per parameter: 2 bytes of weight, 4 of master, 8 of moments, and the gradient summed over micro-batches, 4 bytes in float32 or
2 in bfloat16.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

BUCKET = 2**28  # parameters


class MasterWeights:
    """Replaces a module's parameters by bfloat16 copies; the parameters it had, in float32, become their masters.

    An optimizer built on `masters` updates them. With `wide_sums` the gradients of the copies are added up in the masters' `grad` as the
    backward pass makes them. Without, they stay on the copies, in bfloat16, and `update` widens them a bucket at a time.
    """

    def __init__(self, module: nn.Module, wide_sums: bool = True) -> None:
        self.masters: list[nn.Parameter] = []
        self.copies: list[nn.Parameter] = []
        self.wide_sums = wide_sums
        made: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight stays one
        for owner in module.modules():
            for name, master in list(owner.named_parameters(recurse=False)):
                if master not in made:
                    made[master] = self.copy_of(master)
                setattr(owner, name, made[master])

    def copy_of(self, master: nn.Parameter) -> nn.Parameter:
        """A bfloat16 parameter whose gradient finds its way to the master."""
        copy = nn.Parameter(master.detach().to(torch.bfloat16, copy=True))
        master.data = master.data.float()
        if self.wide_sums:
            copy.register_post_accumulate_grad_hook(hand_over(master))
        self.masters.append(master)
        self.copies.append(copy)
        return copy

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """One step on the masters, which the copies follow; the gradients are freed, without `wide_sums` as it goes."""
        if self.wide_sums:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        else:
            for bucket in buckets(self.copies):
                for place in bucket:
                    copy, master = self.copies[place], self.masters[place]
                    master.grad = None if copy.grad is None else copy.grad.float()
                    copy.grad = None
                optimizer.step()  # passes over the masters that have no gradient
                optimizer.zero_grad(set_to_none=True)
        self.publish()

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


def buckets(parameters: list[nn.Parameter]) -> list[list[int]]:
    """The places of the parameters in order, in groups of about BUCKET elements."""
    found: list[list[int]] = [[]]
    held = 0
    for place, one in enumerate(parameters):
        if found[-1] and held + one.numel() > BUCKET:
            found.append([])
            held = 0
        found[-1].append(place)
        held += one.numel()
    return found
