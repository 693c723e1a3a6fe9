"""Sums of gradients over ranks that hold the same weights and see other data."""

from collections.abc import Iterable

import torch
from torch import nn

from modeling.parallel.mesh import Group
from modeling.parallel.sums import AllSumReduce

BUCKET_ELEMENTS = 2**24


def sum_gradients(parameters: Iterable[nn.Parameter], group: Group) -> None:
    """Replaces every gradient by its sum over the group, in few large sums.

    Data parallelism is a Broadcast of the weights, and this is its adjoint, taken once for all weights after the way back. Ranks of the
    axes "data" and "context" need it, ranks of "tensor" do not: there the layers' own operators have done it. Parameters without a
    gradient on this rank are taken as zero, since other ranks may have one.

    To be called once per update, after all micro-batches: a second call would sum the sums. A loss that is the mean over a data rank's own
    targets is first multiplied by its share of all ranks' targets, so that the sum is the gradient of the mean over all.
    """
    if group.size == 1:
        return
    add = AllSumReduce(group)
    for bucket in buckets(list(parameters)):
        for one in bucket:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.reshape(-1) for one in bucket])  # type: ignore[union-attr]
        total = add(flat)
        for one, part in zip(bucket, total.split([one.numel() for one in bucket]), strict=True):
            one.grad = part.view_as(one)


def buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Neighbouring parameters of one dtype and device, in groups of about BUCKET_ELEMENTS."""
    found: list[list[nn.Parameter]] = []
    size = 0
    for one in (one for one in parameters if one.requires_grad):
        same = bool(found) and (found[-1][-1].dtype, found[-1][-1].device) == (one.dtype, one.device)
        if not same or size + one.numel() > BUCKET_ELEMENTS:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one.numel()
    return found
