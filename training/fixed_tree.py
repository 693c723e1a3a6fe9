"""Sums whose order does not depend on the number of ranks: one binary tree over the micro-batches of a step.

Floating-point addition is not associative, so a sum over ranks and one over micro-batches differ in their last bits, and so do the runs.
Here n values are added as tree(n) = tree(first half) + tree(second half) while n is even, and one after another where it is odd. The
micro-batches of one of R ranks, R a power of two, are a subtree: it is added up where it is, and the ranks' results are added by the rest
of the tree. So 1, 2, 4, ... ranks give the same bits, where each computes a micro-batch in the same way: as many rows, as many threads.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipeline.errors import InputError
from modeling.parallel.ledger import Cost, record
from modeling.parallel.mesh import Group

NAME = "FixedTreeSum"
BUCKET_ELEMENTS = 2**24
Leaf = Callable[[], list[Tensor]]


def check_ranks(ranks: int) -> None:
    """Refuses a number of data ranks that no tree of halves has as its subtrees."""
    if ranks & (ranks - 1):
        raise InputError(
            f"[pretrain] deterministic = true adds gradients in a binary tree; 1, 2, 4, 8, ... data ranks are allowed, got {ranks}"
        )


@torch.no_grad()
def tree_sum(count: int, leaf: Leaf) -> list[Tensor]:
    """The sum of `count` lists of tensors, each made by a call of `leaf` and then this function's to write on."""
    if count % 2:
        total = with_gradients(leaf)
        for _ in range(count - 1):
            add_to(total, with_gradients(leaf))
        return total
    total = tree_sum(count // 2, leaf)
    add_to(total, tree_sum(count // 2, leaf))
    return total


def add_to(total: list[Tensor], more: list[Tensor]) -> None:
    for one, other in zip(total, more, strict=True):
        one.add_(other)


def with_gradients(leaf: Leaf) -> list[Tensor]:
    with torch.enable_grad():
        return leaf()


@torch.no_grad()
def sum_over_ranks(tensors: list[Tensor], group: Group) -> None:
    """Replaces the tensors by their sums over the group, added in the tree's order; the same bits on every rank.

    Every rank gets its share of all ranks' values, adds them and gives everyone the result: as many bytes as a backend's all-reduce.
    """
    if group.size == 1:
        return
    for bucket in buckets(tensors):
        flat = torch.cat([one.reshape(-1) for one in bucket])
        share = -(-flat.numel() // group.size)
        padded = flat.new_zeros(share * group.size)
        padded[: flat.numel()] = flat
        everyone = torch.empty_like(padded)
        record(NAME, Cost(bytes=2 * (group.size - 1) * share * flat.element_size(), messages=2 * (group.size - 1), added=share))
        dist.all_to_all_single(everyone, padded, group=group.process_group)
        rows = iter(everyone.view(group.size, share).unbind())
        (mine,) = tree_sum(group.size, lambda rows=rows: [next(rows)])
        dist.all_gather(list(padded.view(group.size, share).unbind()), mine, group=group.process_group)
        for one, part in zip(bucket, padded[: flat.numel()].split([one.numel() for one in bucket]), strict=True):
            one.copy_(part.view_as(one))


def buckets(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one dtype in groups of about BUCKET_ELEMENTS."""
    found: list[list[Tensor]] = []
    held = 0
    for one in tensors:
        if not found or found[-1][-1].dtype != one.dtype or held + one.numel() > BUCKET_ELEMENTS:
            found.append([])
            held = 0
        found[-1].append(one)
        held += one.numel()
    return found
