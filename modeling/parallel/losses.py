"""Losses of predictions that lie over ranks, counted once: every rank gets the same number, and its gradient is that of one rank.

`group` are the ranks that hold other elements, `field.group` for a field with whole channels; the prediction is shared by all others.
Sums of parts become shared by SumReduce; on one rank they are torch's own losses.
"""

# B batch, K classes, C channels, S spatial dims.

import torch
from torch import Tensor
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.exchange import sum_dtype
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.sums import SumReduce


def mse(prediction: Tensor, target: Tensor, group: Group = ALONE) -> Tensor:
    """The mean of squared differences over all elements of all ranks."""
    check_shapes("mse", prediction, target)
    if group.size == 1:
        return functional.mse_loss(prediction, target)
    return mean(functional.mse_loss(prediction, target, reduction="sum"), prediction.numel(), group)


def l1(prediction: Tensor, target: Tensor, group: Group = ALONE) -> Tensor:
    """The mean of absolute differences over all elements of all ranks."""
    check_shapes("l1", prediction, target)
    if group.size == 1:
        return functional.l1_loss(prediction, target)
    return mean(functional.l1_loss(prediction, target, reduction="sum"), prediction.numel(), group)


def binary_cross_entropy(logits: Tensor, target: Tensor, group: Group = ALONE) -> Tensor:
    """The mean over all elements of -(t log p + (1 - t) log(1 - p)) with p = sigmoid(logits), in nats."""
    check_shapes("binary_cross_entropy", logits, target)
    if group.size == 1:
        return functional.binary_cross_entropy_with_logits(logits, target)
    return mean(functional.binary_cross_entropy_with_logits(logits, target, reduction="sum"), logits.numel(), group)


def cross_entropy(logits_BKS: Tensor, target_BS: Tensor, group: Group = ALONE, ignore: int = -100) -> Tensor:
    """The mean of -log softmax over the targets that are not `ignore`, in nats. All classes are on every rank: Gather them first."""
    if logits_BKS.ndim < 2 or target_BS.shape != (logits_BKS.shape[0], *logits_BKS.shape[2:]):
        raise ModelError(f"cross_entropy: logits of the shape {list(logits_BKS.shape)} do not fit targets of {list(target_BS.shape)}")
    if group.size == 1:
        return functional.cross_entropy(logits_BKS, target_BS, ignore_index=ignore)
    total = functional.cross_entropy(logits_BKS, target_BS, ignore_index=ignore, reduction="sum")
    return mean(total, (target_BS != ignore).sum(), group)


def relative_l2(prediction: Tensor, target: Tensor, group: Group = ALONE, batch: Group = ALONE) -> Tensor:
    """The mean over samples (dim 0) of |prediction - target| / |target|, norms over all else.

    group   ranks that hold other elements of the same samples
    batch   ranks that hold other samples
    A sample whose difference is zero has the gradient zero; a target that is zero throughout has no relative error, and gives inf or nan.
    """
    check_shapes("relative_l2", prediction, target)
    wide = sum_dtype(prediction.dtype)
    difference = (prediction - target).to(wide).flatten(1)
    squares_2B = torch.stack((difference.square().sum(1), target.to(wide).flatten(1).square().sum(1)))
    norms_2B = norm_of(SumReduce(group)(squares_2B))
    ratio_B = norms_2B[0] / norms_2B[1]
    return ratio_B.mean() if batch.size == 1 else mean(ratio_B.sum(), ratio_B.numel(), batch)


def norm_of(squares: Tensor) -> Tensor:
    """The square root, with the gradient zero at zero."""
    zero = squares == 0
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def mean(total: Tensor, count: int | Tensor, group: Group) -> Tensor:
    """The ranks' totals by the ranks' counts, shared; both in one sum over the ranks."""
    wide = total.to(sum_dtype(total.dtype))
    sums = SumReduce(group)(torch.stack((wide, torch.as_tensor(count, dtype=wide.dtype, device=wide.device))))
    return (sums[0] / sums[1].detach()).to(total.dtype)


def check_shapes(name: str, prediction: Tensor, target: Tensor) -> None:
    """Refuses shapes that would be broadcast against each other: a mean over the wrong elements."""
    if prediction.shape != target.shape:
        raise ModelError(f"{name}: prediction and target must have one shape, got {list(prediction.shape)} and {list(target.shape)}")
