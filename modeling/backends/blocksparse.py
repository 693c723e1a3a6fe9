"""Blocksparse attention of phi-3-small on the CPU: torch's own attention kernel on the visible blocks only, as one operator.

Heads of the same offset see the same blocks and are computed together, a chunk of queries at a time (`modeling.blocksparse_counts`):
one call with a mask over the blocks near the diagonal, one without over the vertical blocks before them, gathered once. Softmax over both
is put together from their two logsumexps (arXiv 2205.14135, section 3.1). The backward kernel takes the logsumexp of the whole row and the
whole output, so each call's gradients are those of its own keys and are added up.
"""

# B batch, T query tokens, N query heads, K key/value heads, G = N/K queries per key, H features per head, D documents.
# Of one document: Z heads of one offset, C queries of one chunk, S keys near its diagonal, V keys of vertical blocks.

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from modeling.blocksparse_counts import Chunk, causal_tokens, chunks, offsets, vertical_blocks
from modeling.config import BlockSparse
from modeling.errors import ModelError

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def blocksparse_attention(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds_D: Tensor, sparse: BlockSparse, scale: float) -> Tensor:
    """Attention (B, N, T, H) over the keys that `modeling.visible.sparse_mask` shows, documents apart; differentiable once in q, k and v.

    bounds_D  int32 (D + 1,), `modeling.visible.document_bounds`: where documents begin in the rows laid end to end, and the end;
              those of one row hold for every row.
    In bfloat16 each of a row's two parts is rounded before they are put together; gradients of keys add up in float32.
    Raises ModelError off the CPU or where the shapes or dtypes do not fit. Under autocast q, k and v are rounded to its dtype first.
    """
    if q_BNTH.device.type != "cpu":
        raise ModelError(f"blocksparse_attention runs on the CPU only, got {q_BNTH.device.type}; the flex backend serves other devices")
    if torch.is_autocast_enabled("cpu") and q_BNTH.dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
        q_BNTH, k_BKTH, v_BKTH = q_BNTH.to(dtype), k_BKTH.to(dtype), v_BKTH.to(dtype)
    _check(q_BNTH, k_BKTH, v_BKTH)
    ints = (sparse.block, sparse.local_blocks, sparse.vertical_stride, sparse.same_heads)
    return _blocksparse(q_BNTH, k_BKTH, v_BKTH, bounds_D, *ints, scale)[0]


def _check(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor) -> None:
    batch, heads, tokens, width = q_BNTH.shape
    if k_BKTH.shape != v_BKTH.shape or k_BKTH.shape != (batch, k_BKTH.shape[1], tokens, width) or heads % k_BKTH.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q_BNTH, k_BKTH, v_BKTH))
        raise ModelError(f"blocksparse_attention needs q (B, N, T, H) and k, v (B, K, T, H) with N a multiple of K, got {shapes}")
    if not q_BNTH.dtype == k_BKTH.dtype == v_BKTH.dtype:
        raise ModelError(f"blocksparse_attention needs q, k and v of one dtype, got {q_BNTH.dtype}, {k_BKTH.dtype}, {v_BKTH.dtype}")


@dataclass(frozen=True)
class _Heads:
    """The heads of one offset, and the key head of each; slices where these are evenly spaced, so that taking them copies nothing."""

    offset: int
    queries: slice | list[int]
    keys: slice | list[int]
    key_index: Tensor

    @staticmethod
    def all(sparse: BlockSparse, num_heads: int, num_keys: int) -> "list[_Heads]":
        groups = num_heads // num_keys
        found = []
        for offset, heads in offsets(sparse, num_heads).items():
            keys = [head // groups for head in heads]
            found.append(_Heads(offset, _spaced(heads), _spaced(keys), torch.tensor(keys)))
        return found


def _spaced(numbers: list[int]) -> slice | list[int]:
    """The slice that takes these numbers, else the numbers themselves."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    even = step > 0 and all(second - first == step for first, second in pairwise(numbers))
    return slice(numbers[0], numbers[-1] + 1, step) if even else numbers


def _documents(bounds_D: Tensor, rows: int, tokens: int) -> Iterator[tuple[int, slice]]:
    """Row and place in the row of each document."""
    bounds = bounds_D.tolist()
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] not in (tokens, rows * tokens):
        raise ModelError(
            f"bounds must go from 0 to {tokens} or {rows * tokens}, the tokens of one row or of all; got {bounds[:1]} to {bounds[-1:]}"
        )
    repeats = rows if bounds[-1] == tokens else 1
    for first, end in pairwise(bounds):
        row, start = divmod(first, tokens)
        if not start < start + end - first <= tokens:
            raise ModelError(f"bounds must grow, and no document may cross a row of {tokens} tokens; got {first} to {end}")
        for same in range(repeats):
            yield row + same, slice(start, start + end - first)


def _dense_rows(x_BNTH: Tensor) -> Tensor:
    """The same values with the features of a token side by side, as the kernel takes them for granted; mostly they are already."""
    return x_BNTH if x_BNTH.stride(-1) == 1 and x_BNTH.stride(-2) >= x_BNTH.shape[-1] else x_BNTH.contiguous()


class _Masks:
    """What the calls near the diagonal add to their scores, (C, S), 0 or -inf: one mask for each (block + offset) % vertical_stride."""

    def __init__(self, sparse: BlockSparse, dtype: torch.dtype) -> None:
        self.sparse, self.dtype = sparse, dtype
        self.made: dict[int, Tensor] = {}

    def of(self, chunk: Chunk, offset: int) -> Tensor:
        phase = (chunk.phase + offset) % self.sparse.vertical_stride
        queries, keys = chunk.end - chunk.first, chunk.end - chunk.local_first
        # A mask serves shorter chunks too; that of an earlier, short document may be too small.
        if phase not in self.made or self.made[phase].shape[0] < queries:
            self.made[phase] = self._make(phase, queries, keys)
        return self.made[phase][:queries, :keys]

    def _make(self, phase: int, queries: int, keys: int) -> Tensor:
        sparse = self.sparse
        # Counted from the chunk's first query, which stands (local_blocks - 1) blocks after the first key.
        query_C1 = torch.arange(queries)[:, None]
        key_S = torch.arange(keys) - (keys - queries)
        key_block_S = key_S.div(sparse.block, rounding_mode="floor")
        local_CS = query_C1 // sparse.block - key_block_S < sparse.local_blocks
        seen_CS = (local_CS | ((key_block_S + phase) % sparse.vertical_stride == 0)) & (key_S <= query_C1)
        return torch.zeros(queries, keys, dtype=self.dtype).masked_fill_(~seen_CS, float("-inf"))


def _gather(x_ZTH: Tensor, blocks: range, block: int) -> Tensor:
    """The vertical blocks one after another, (1, Z, V, H)."""
    whole_ZJLH = x_ZTH[:, : x_ZTH.shape[1] // block * block].unflatten(1, (-1, block))
    return whole_ZJLH[:, blocks.start : blocks.stop : blocks.step].flatten(1, 2)[None]


def _last_vertical(length: int, heads: _Heads, sparse: BlockSparse) -> range:
    """All the vertical blocks that the chunks of a document take before their local ones."""
    before = max((chunk.before for chunk in chunks(length, sparse)), default=0)
    return vertical_blocks(before, heads.offset, sparse)


def _paired(x_NTH: Tensor, num_keys: int) -> Tensor:
    """(N, T, H) as (K, G, T, H)."""
    return x_NTH.unflatten(0, (num_keys, -1))


def _shared(x_KTH: Tensor, groups: int) -> Tensor:
    """(K, T, H) as (K, G, T, H), the same memory for all of a group."""
    return x_KTH[:, None].expand(-1, groups, -1, -1)


def _like_heads(x_BNTH: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty (B, N, T, H) whose memory is (B, T, N, H), so that joining the heads afterwards copies nothing."""
    batch, heads, tokens, width = x_BNTH.shape
    return x_BNTH.new_empty((batch, tokens, heads, width), dtype=dtype).transpose(1, 2)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _attend(
    q_NTH: Tensor, k_KTH: Tensor, v_KTH: Tensor, y_NTH: Tensor, lse_NT: Tensor, groups: list[_Heads], masks: _Masks, scale: float
) -> None:
    """One document; writes output and logsumexp."""
    sparse, length, num_keys = masks.sparse, q_NTH.shape[1], k_KTH.shape[0]
    head = slice(0, causal_tokens(length, sparse))
    shared = q_NTH.shape[0] // num_keys
    keys_values = (_shared(k_KTH[:, head], shared), _shared(v_KTH[:, head], shared))
    y_KGTH, lse_KGT = _forward(_paired(q_NTH[:, head], num_keys), *keys_values, 0.0, True, scale=scale)
    y_NTH[:, head] = y_KGTH.flatten(0, 1)
    lse_NT[:, head] = lse_KGT.flatten(0, 1)
    if head.stop == length:
        return
    for heads in groups:
        q_ZTH, k_ZTH, v_ZTH = q_NTH[heads.queries], k_KTH[heads.keys], v_KTH[heads.keys]
        blocks = _last_vertical(length, heads, sparse)
        far_k_1ZVH, far_v_1ZVH = _gather(k_ZTH, blocks, sparse.block), _gather(v_ZTH, blocks, sparse.block)
        for chunk in chunks(length, sparse):
            rows, near = slice(chunk.first, chunk.end), slice(chunk.local_first, chunk.end)
            q_1ZCH, mask_CS = q_ZTH[None, :, rows], masks.of(chunk, heads.offset)
            y_1ZCH, lse_1ZC = _forward(q_1ZCH, k_ZTH[None, :, near], v_ZTH[None, :, near], attn_mask=mask_CS, scale=scale)
            far = len(vertical_blocks(chunk.before, heads.offset, sparse)) * sparse.block
            if far:
                far_y_1ZCH, far_lse_1ZC = _forward(q_1ZCH, far_k_1ZVH[:, :, :far], far_v_1ZVH[:, :, :far], scale=scale)
                share_1ZC1 = torch.sigmoid(far_lse_1ZC - lse_1ZC)[..., None]
                y_1ZCH = torch.lerp(y_1ZCH.to(share_1ZC1.dtype), far_y_1ZCH.to(share_1ZC1.dtype), share_1ZC1)
                lse_1ZC = torch.logaddexp(lse_1ZC, far_lse_1ZC)
            y_NTH[heads.queries, rows] = y_1ZCH[0].to(y_NTH.dtype)
            lse_NT[heads.queries, rows] = lse_1ZC[0]


@torch.library.custom_op("phial::blocksparse_attention", mutates_args=(), device_types="cpu")
def _blocksparse(
    q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds_D: Tensor,
    block: int, local_blocks: int, vertical_stride: int, same_heads: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output, and the logsumexp of each query's scores (B, N, T)."""
    sparse = BlockSparse(block=block, local_blocks=local_blocks, vertical_stride=vertical_stride, same_heads=same_heads)
    q_BNTH, k_BKTH, v_BKTH = _dense_rows(q_BNTH), _dense_rows(k_BKTH), _dense_rows(v_BKTH)
    groups, masks = _Heads.all(sparse, q_BNTH.shape[1], k_BKTH.shape[1]), _Masks(sparse, q_BNTH.dtype)
    y_BNTH, lse_BNT = _like_heads(q_BNTH), q_BNTH.new_empty(q_BNTH.shape[:3], dtype=_precise(q_BNTH.dtype))
    for row, span in _documents(bounds_D, q_BNTH.shape[0], q_BNTH.shape[2]):
        q_NTH, k_KTH, v_KTH = q_BNTH[row, :, span], k_BKTH[row, :, span], v_BKTH[row, :, span]
        _attend(q_NTH, k_KTH, v_KTH, y_BNTH[row, :, span], lse_BNT[row, :, span], groups, masks, scale)
    return y_BNTH, lse_BNT


@_blocksparse.register_fake
def _(q_BNTH: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return _like_heads(q_BNTH), q_BNTH.new_empty(q_BNTH.shape[:3], dtype=_precise(q_BNTH.dtype))


@dataclass(frozen=True)
class _Row:
    """What the backward calls of one document read, and where its gradients go; those of keys and values are whole and precise."""

    gradient_NTH: Tensor
    q_NTH: Tensor
    k_KTH: Tensor
    v_KTH: Tensor
    y_NTH: Tensor
    lse_NT: Tensor
    grad_q_NTH: Tensor
    grad_k_KTH: Tensor
    grad_v_KTH: Tensor


def _attend_backward(one: _Row, groups: list[_Heads], masks: _Masks, scale: float) -> None:
    """One document; writes the queries' gradient and adds to the keys' and values'."""
    sparse, length, num_keys = masks.sparse, one.q_NTH.shape[1], one.k_KTH.shape[0]
    head = slice(0, causal_tokens(length, sparse))
    shared = one.q_NTH.shape[0] // num_keys
    keys_values = (_shared(one.k_KTH[:, head], shared), _shared(one.v_KTH[:, head], shared))
    gradient, q_KGTH, y_KGTH, lse_KGT = (
        _paired(x_NTH[:, head], num_keys) for x_NTH in (one.gradient_NTH, one.q_NTH, one.y_NTH, one.lse_NT)
    )
    grad_q, grad_k, grad_v = _backward(gradient, q_KGTH, *keys_values, y_KGTH, lse_KGT, 0.0, True, scale=scale)
    one.grad_q_NTH[:, head] = grad_q.flatten(0, 1)
    one.grad_k_KTH[:, head] += grad_k.sum(1, dtype=one.grad_k_KTH.dtype)
    one.grad_v_KTH[:, head] += grad_v.sum(1, dtype=one.grad_v_KTH.dtype)
    if head.stop == length:
        return
    for heads in groups:
        _heads_backward(one, heads, masks, scale)


def _heads_backward(one: _Row, heads: _Heads, masks: _Masks, scale: float) -> None:
    """The chunks of one offset's heads. Heads may share a key head, so gradients of keys are added by index."""
    sparse, length, precise = masks.sparse, one.q_NTH.shape[1], one.grad_k_KTH.dtype
    gradient_ZTH, q_ZTH, y_ZTH, lse_ZT = (x[heads.queries][None] for x in (one.gradient_NTH, one.q_NTH, one.y_NTH, one.lse_NT))
    k_ZTH, v_ZTH = one.k_KTH[heads.keys], one.v_KTH[heads.keys]
    blocks = _last_vertical(length, heads, sparse)
    far_k_1ZVH, far_v_1ZVH = _gather(k_ZTH, blocks, sparse.block), _gather(v_ZTH, blocks, sparse.block)
    far_grads = [torch.zeros_like(far_k_1ZVH[0], dtype=precise) for _ in range(2)]
    for chunk in chunks(length, sparse):
        rows, near = slice(chunk.first, chunk.end), slice(chunk.local_first, chunk.end)
        gradient, q_1ZCH, y_1ZCH, lse_1ZC = (x[:, :, rows] for x in (gradient_ZTH, q_ZTH, y_ZTH, lse_ZT))
        near_k, near_v, mask_CS = k_ZTH[None, :, near], v_ZTH[None, :, near], masks.of(chunk, heads.offset)
        grad_q, *near_grads = _backward(gradient, q_1ZCH, near_k, near_v, y_1ZCH, lse_1ZC, 0.0, False, attn_mask=mask_CS, scale=scale)
        for total_KTH, grad in zip((one.grad_k_KTH, one.grad_v_KTH), near_grads, strict=True):
            total_KTH[:, near].index_add_(0, heads.key_index, grad[0].to(precise))
        far = len(vertical_blocks(chunk.before, heads.offset, sparse)) * sparse.block
        if far:
            far_k, far_v = far_k_1ZVH[:, :, :far], far_v_1ZVH[:, :, :far]
            far_grad_q, *grads = _backward(gradient, q_1ZCH, far_k, far_v, y_1ZCH, lse_1ZC, 0.0, False, scale=scale)
            grad_q = grad_q + far_grad_q
            for total_ZVH, grad in zip(far_grads, grads, strict=True):
                total_ZVH[:, :far] += grad[0]
        one.grad_q_NTH[heads.queries, rows] = grad_q[0]
    # The adjoint of the gather.
    for number, block in enumerate(blocks):
        into, out_of = (slice(at * sparse.block, (at + 1) * sparse.block) for at in (block, number))
        one.grad_k_KTH[:, into].index_add_(0, heads.key_index, far_grads[0][:, out_of])
        one.grad_v_KTH[:, into].index_add_(0, heads.key_index, far_grads[1][:, out_of])


@torch.library.custom_op("phial::blocksparse_attention_backward", mutates_args=(), device_types="cpu")
def _blocksparse_backward(
    gradient_BNTH: Tensor, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds_D: Tensor, y_BNTH: Tensor, lse_BNT: Tensor,
    block: int, local_blocks: int, vertical_stride: int, same_heads: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k and v."""
    sparse = BlockSparse(block=block, local_blocks=local_blocks, vertical_stride=vertical_stride, same_heads=same_heads)
    groups, masks = _Heads.all(sparse, q_BNTH.shape[1], k_BKTH.shape[1]), _Masks(sparse, q_BNTH.dtype)
    q_BNTH, k_BKTH, v_BKTH, gradient_BNTH = (_dense_rows(x_BNTH) for x_BNTH in (q_BNTH, k_BKTH, v_BKTH, gradient_BNTH))
    precise = _precise(q_BNTH.dtype)
    grad_q_BNTH = _like_heads(q_BNTH)
    grad_k_BKTH, grad_v_BKTH = _like_heads(k_BKTH, precise).zero_(), _like_heads(v_BKTH, precise).zero_()
    read = (gradient_BNTH, q_BNTH, k_BKTH, v_BKTH, y_BNTH, lse_BNT, grad_q_BNTH, grad_k_BKTH, grad_v_BKTH)
    for row, span in _documents(bounds_D, q_BNTH.shape[0], q_BNTH.shape[2]):
        _attend_backward(_Row(*(x[row, :, span] for x in read)), groups, masks, scale)
    return grad_q_BNTH, grad_k_BKTH.to(k_BKTH.dtype), grad_v_BKTH.to(v_BKTH.dtype)


@_blocksparse_backward.register_fake
def _(gradient_BNTH: Tensor, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, *_rest: object) -> tuple[Tensor, Tensor, Tensor]:
    return _like_heads(q_BNTH), _like_heads(k_BKTH), _like_heads(v_BKTH)


def _keep(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q_BNTH, k_BKTH, v_BKTH, bounds_D, *settings = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q_BNTH, k_BKTH, v_BKTH, bounds_D, *output)
    ctx.settings = settings


def _gradients(ctx, gradient_BNTH: Tensor, _lse: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = _blocksparse_backward(gradient_BNTH, *ctx.saved_tensors, *ctx.settings)
    return *grads, None, *(None for _ in ctx.settings)


_blocksparse.register_autograd(_gradients, setup_context=_keep)
