"""Ring attention: keys and values go round the ranks while each attends with its own queries to what it holds at the moment.

Blocks are joined by their log-sum-exp (online softmax; arXiv 2310.01889). Keys travel while blocks are computed, so a rank holds those
of two ranks at most: one's in use and one's arriving. On the way back they go round again, and their gradients travel with them. All
movement is the operator Shift. On a CPU the blocks run in torch's flash kernel; on other devices they are written out, which holds a
block's scores.
"""

# B batch, N query heads, K key/value heads, t queries and s keys of a block, H features per head.

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modeling.backends.masks import spread
from modeling.errors import ModelError
from modeling.parallel.context import sees
from modeling.parallel.context_tokens import TokenShare
from modeling.parallel.mesh import Group
from modeling.parallel.moves import shift
from modeling.visible import Visible

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True)
class Block:
    """Neighbouring queries of this rank against neighbouring keys of one rank: where they lie in what the ranks hold, and what is seen.

    `mask_BNts` None: everything, or, where `causal`, every key up to the query's own, both starting at the same token.
    """

    queries: slice
    keys: slice
    causal: bool
    mask_BNts: Tensor | None


class Ring:
    """Made once per pass; the masks of all blocks are shared by its layers."""

    def __init__(self, group: Group, shares: list[TokenShare], visible: Visible, device: torch.device) -> None:
        self.group = group
        lengths = [share.count for share in shares]
        mine = shares[group.index]
        # From each rank to the next, when the keys have gone round so far already.
        self.moves = [shift(group, 3, lengths, turned=turned) for turned in range(group.size)]
        self.blocks = [list(blocks_of(mine, other, visible, device)) for other in shares]

    def __call__(self, q_BNtH: Tensor, k_BKtH: Tensor, v_BKtH: Tensor, sparse: bool, scale: float) -> Tensor:
        if sparse:
            raise ModelError("context parallelism 'ring' has no blocksparse layers; use 'ulysses'")
        return _RingAttention.apply(q_BNtH, k_BKtH, v_BKtH, self, scale)  # type: ignore[no-any-return]

    def steps(self) -> Iterator[tuple[int, list[Block]]]:
        """(how far the keys have gone round, the blocks to attend to)."""
        for turned in range(self.group.size):
            yield turned, self.blocks[(self.group.index - turned) % self.group.size]


def blocks_of(mine: TokenShare, other: TokenShare, visible: Visible, device: torch.device) -> Iterator[Block]:
    """The blocks of one rank's tokens in which anything is seen."""
    window = visible.window
    for q_at, queries in placed(mine):
        for k_at, keys in placed(other):
            if keys.start >= queries.stop or not queries or not keys:
                continue
            if window is not None and keys.stop - 1 <= queries.start - window:
                continue
            if visible.runs_BT is not None and not share_a_document(visible.runs_BT, queries, keys):
                continue
            plain = visible.runs_BT is None and window is None
            if plain and (queries == keys or keys.stop <= queries.start):
                yield Block(q_at, k_at, queries == keys, None)
            else:
                yield Block(q_at, k_at, False, sees(queries, keys, window, visible.runs_BT, device))


def share_a_document(runs_BT: Tensor, queries: range, keys: range) -> bool:
    """Whether any row has a document with tokens of both; documents are numbered in order, so the later keys and the earlier queries
    tell.
    """
    return bool((runs_BT[:, keys.stop - 1] >= runs_BT[:, queries.start]).any())


def placed(share: TokenShare) -> Iterator[tuple[slice, range]]:
    """Each run of a share with its place in the rank's own tensor."""
    at = 0
    for run in share.runs:
        yield slice(at, at + len(run)), run
        at += len(run)


class _RingAttention(torch.autograd.Function):
    """softmax(scale q k^T) v over all ranks' keys; the communication in it is `Shift`, forwards and for the gradients."""

    @staticmethod
    def forward(ctx: Any, q_BNtH: Tensor, k_BKtH: Tensor, v_BKtH: Tensor, ring: Ring, scale: float) -> Tensor:
        wide = torch.promote_types(q_BNtH.dtype, torch.float32)
        y_BNtH = torch.zeros_like(q_BNtH, dtype=wide)
        lse_BNt = q_BNtH.new_full(q_BNtH.shape[:3], -torch.inf, dtype=wide)
        kv_2BKsH = torch.stack((k_BKtH, v_BKtH))
        for turned, blocks in ring.steps():
            last = turned == ring.group.size - 1
            coming = None if last else ring.moves[turned].launch(kv_2BKsH)
            for block in blocks:
                attend_block(block, q_BNtH, kv_2BKsH, y_BNtH, lse_BNt, scale)
            kv_2BKsH = kv_2BKsH if coming is None else coming()
        y_BNtH = y_BNtH.to(q_BNtH.dtype)
        ctx.save_for_backward(q_BNtH, k_BKtH, v_BKtH, y_BNtH, lse_BNt)
        ctx.ring, ctx.scale = ring, scale
        return y_BNtH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_BNtH, k_BKtH, v_BKtH, y_BNtH, lse_BNt = ctx.saved_tensors
        ring: Ring = ctx.ring
        wide = lse_BNt.dtype
        dq_BNtH = torch.zeros_like(q_BNtH, dtype=wide)
        kv_2BKsH = torch.stack((k_BKtH, v_BKtH))
        dkv_2BKsH = torch.zeros_like(kv_2BKsH, dtype=wide)
        for turned, blocks in ring.steps():
            last = turned == ring.group.size - 1
            coming = None if last else ring.moves[turned].launch(kv_2BKsH)
            for block in blocks:
                back_block(block, grads[0], q_BNtH, kv_2BKsH, y_BNtH, lse_BNt, dq_BNtH, dkv_2BKsH, ctx.scale)
            # The gradients follow the keys they belong to; the last step brings them home.
            following = ring.moves[turned].launch(dkv_2BKsH)
            kv_2BKsH = kv_2BKsH if coming is None else coming()
            dkv_2BKsH = following()
        dk_BKtH, dv_BKtH = dkv_2BKsH.to(q_BNtH.dtype)
        return dq_BNtH.to(q_BNtH.dtype), dk_BKtH, dv_BKtH, None, None


def attend_block(block: Block, q_BNtH: Tensor, kv_2BKsH: Tensor, y_BNtH: Tensor, lse_BNt: Tensor, scale: float) -> None:
    """Attends to a block and joins it to what the queries have seen so far, in place: y and its log-sum-exp are this function's own."""
    q, k, v = q_BNtH[:, :, block.queries], *kv_2BKsH[:, :, :, block.keys]
    groups = q.shape[1] // k.shape[1]
    y, lse = flash(q, spread(k, groups), spread(v, groups), block, scale)
    seen_lse, seen_y = lse_BNt[:, :, block.queries], y_BNtH[:, :, block.queries]
    total = torch.logaddexp(seen_lse, lse)
    # A query that has seen nothing has -inf on both sides, and takes nothing from either.
    weight_old, weight_new = ((one - total).exp().nan_to_num(0.0)[..., None] for one in (seen_lse, lse))
    seen_y.mul_(weight_old).add_(y * weight_new)
    seen_lse.copy_(total)


def flash(q: Tensor, k: Tensor, v: Tensor, block: Block, scale: float) -> tuple[Tensor, Tensor]:
    """Attention to one block and its log-sum-exp, -inf where a query sees none of its keys."""
    bias = added_mask(block.mask_BNts, q)
    if has_flash(q):
        y, lse = _flash(q.contiguous(), k.contiguous(), v.contiguous(), 0.0, block.causal, attn_mask=bias, scale=scale)
        y, lse = y.to(torch.promote_types(q.dtype, torch.float32)), lse
    else:
        scores = plain_scores(q, k, block, bias, scale)
        lse = scores.logsumexp(-1)
        y = (scores - lse[..., None]).exp().nan_to_num(0.0) @ v.to(scores.dtype)
    if block.mask_BNts is None:
        return y, lse
    blind = ~block.mask_BNts.any(-1)
    return y.masked_fill(blind[..., None], 0.0), lse.masked_fill(blind, -torch.inf)


def back_block(
    block: Block,
    dy_BNtH: Tensor,
    q_BNtH: Tensor,
    kv_2BKsH: Tensor,
    y_BNtH: Tensor,
    lse_BNt: Tensor,
    dq_BNtH: Tensor,
    dkv_2BKsH: Tensor,
    scale: float,
) -> None:
    """Adds one block's gradients, given the output and log-sum-exp over all blocks (arXiv 2205.14135, algorithm 4)."""
    dy, q, y = (x[:, :, block.queries].contiguous() for x in (dy_BNtH, q_BNtH, y_BNtH))
    lse = lse_BNt[:, :, block.queries].contiguous()
    held_k, held_v = kv_2BKsH[:, :, :, block.keys]
    groups = q.shape[1] // held_k.shape[1]
    k, v = spread(held_k, groups).contiguous(), spread(held_v, groups).contiguous()
    bias = added_mask(block.mask_BNts, q)
    if has_flash(q):
        dq, dk, dv = _flash_back(dy, q, k, v, y, lse, 0.0, block.causal, attn_mask=bias, scale=scale)
    else:
        dq, dk, dv = plain_gradients(dy, q, k, v, y, lse, plain_scores(q, k, block, bias, scale), scale)
    dq_BNtH[:, :, block.queries] += dq
    for total, one in zip(dkv_2BKsH, (dk, dv), strict=True):
        total[:, :, block.keys] += one.unflatten(1, (-1, groups)).sum(2, dtype=total.dtype)


def has_flash(q: Tensor) -> bool:
    """Whether torch's kernel for blocks with their log-sum-exp is there; elsewhere they are written out."""
    return q.is_cpu


def added_mask(mask_BNts: Tensor | None, q: Tensor) -> Tensor | None:
    """0 where a key is seen and -inf where not, in the queries' dtype."""
    return None if mask_BNts is None else torch.zeros(mask_BNts.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask_BNts, -torch.inf)


def plain_scores(q: Tensor, k: Tensor, block: Block, bias: Tensor | None, scale: float) -> Tensor:
    """All scores of a block, at least float32: what devices without the CPU's kernel use."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = scale * (q.to(wide) @ k.to(wide).transpose(-1, -2))
    if block.causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return scores if bias is None else scores + bias


def plain_gradients(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, scores: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one block from its scores."""
    wide = scores.dtype
    p = (scores - lse[..., None]).exp()
    dy, y = dy.to(wide), y.to(wide)
    ds = p * (dy @ v.to(wide).transpose(-1, -2) - (dy * y).sum(-1, keepdim=True))
    return scale * ds @ k.to(wide), scale * ds.transpose(-1, -2) @ q.to(wide), p.transpose(-1, -2) @ dy
