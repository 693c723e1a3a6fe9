"""AdamW for weights in bfloat16, with master copies and moments in float32: 16 bytes a parameter, gradients included.

A bfloat16 weight has 8 bits, so that an update smaller than 1/256 of it would be lost; the master copy keeps it. Parameters are updated in
buckets, and each bucket's gradient is widened only for its turn.
"""

from typing import Any

import torch
from torch import nn

BUCKET = 2**28  # parameters


class MasterAdamW:
    """The same update as AdamW on float32 weights that get these gradients; both sides of a benchmark use it."""

    def __init__(self, parameters: list[nn.Parameter], settings: dict[str, Any]) -> None:
        self.buckets: list[tuple[list[nn.Parameter], list[nn.Parameter], torch.optim.AdamW]] = []
        for bucket in buckets(parameters):
            masters = [nn.Parameter(one.detach().float().clone()) for one in bucket]
            self.buckets.append((bucket, masters, torch.optim.AdamW(masters, **settings)))

    def step(self) -> None:
        """Updates masters and weights, and frees the gradients as it goes."""
        for bucket, masters, optimizer in self.buckets:
            for parameter, master in zip(bucket, masters, strict=True):
                if parameter.grad is not None:
                    master.grad = parameter.grad.float()
                parameter.grad = None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for parameter, master in zip(bucket, masters, strict=True):
                    parameter.copy_(master)


def buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in order, in groups of about BUCKET elements."""
    found: list[list[nn.Parameter]] = [[]]
    for one in parameters:
        if found[-1] and sum(other.numel() for other in found[-1]) + one.numel() > BUCKET:
            found.append([])
        found[-1].append(one)
    return found
