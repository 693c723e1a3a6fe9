"""Attention of packed documents on a CPU: one registered operator, whose work grows with the squared length of documents, not of rows.

`packed_attention` cuts the rows where documents begin and gives each document to torch's own flash kernel, causally; it saves what the
kernel's backward needs, so nothing is computed twice. A document longer than the window is cut further: its first `window_keys` queries
see all earlier keys, later ones run in chunks over the keys that the chunk can see, under a band mask. Being an operator, it is one node
for torch.compile, however many documents there are.

bfloat16: the kernel keeps scores and softmax in float32 either way. Forwards, widening to float32 gains or loses a tenth at most, so it is
not done. The backward has a cost per head and call that makes pieces of under `WIDEN_BELOW` queries faster when widened, run and rounded
once (nearly four times at 50 queries, even at about 500), which is also more exact; longer ones are faster in bfloat16.
"""

# B batch, T tokens of a row, N query heads, K key/value heads, G = N/K queries per key, H features per head, D documents,
# t queries and s keys of one piece.

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from modeling.errors import ModelError

CHUNK = 256  # queries of a windowed chunk: fewer waste less work beside the band, more fill the kernel's blocks
WIDEN_BELOW = 512  # queries; measured, see the module's docstring

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring queries of one row and the keys that some of them see. Not `banded`: the same tokens, causally."""

    row: int
    first_key: int
    first_query: int
    end: int
    banded: bool

    @property
    def pairs(self) -> int:
        """Query-key pairs that must be looked at: half of them, and the diagonal, where causality hides the rest."""
        queries = self.end - self.first_query
        return queries * (self.end - self.first_key) if self.banded else queries * (queries + 1) // 2


def pieces(bounds: list[int], tokens: int, window_keys: int) -> Iterator[Piece]:
    """Cuts documents, which `bounds` delimits in rows of `tokens` laid end to end, into pieces; `window_keys` 0: no window."""
    for begin, end in pairwise(bounds):
        row, start = divmod(begin, tokens)
        stop = start + end - begin
        causal = min(stop, start + window_keys) if window_keys else stop
        yield Piece(row, start, start, causal, banded=False)
        for first in range(causal, stop, CHUNK):
            yield Piece(row, first - window_keys + 1, first, min(first + CHUNK, stop), banded=True)


def packed_attention(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds: Tensor, window_keys: int, scale: float) -> Tensor:
    """Each query over the earlier keys of its own document, itself included: (B, N, T, H), stored as (B, T, N, H).

    bounds       int32 (D + 1,), from `document_bounds`; those of one row hold for every row
    window_keys  keys a query sees, itself included; 0: all earlier ones

    Under autocast it works in autocast's dtype, as torch's attention does. Raises ModelError where `bounds` do not cut rows of T tokens.
    """
    device = q_BNTH.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        q_BNTH, k_BKTH, v_BKTH = q_BNTH.to(dtype), k_BKTH.to(dtype), v_BKTH.to(dtype)
    return _packed(q_BNTH, k_BKTH, v_BKTH, bounds, window_keys, scale)[0]


@torch.library.custom_op("phial::packed_attention", mutates_args=(), device_types="cpu")
def _packed(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds: Tensor, window_keys: int, scale: float) -> tuple[Tensor, Tensor]:
    """Attention, and log-sum-exp of the scores (B, N, T) in float32, or float64 for float64."""
    q_BNTH, k_BKTH, v_BKTH = _dense_rows(q_BNTH), _dense_rows(k_BKTH), _dense_rows(v_BKTH)
    y_BNTH, lse_BNT = _fake(q_BNTH, k_BKTH, v_BKTH, bounds, window_keys, scale)
    groups = q_BNTH.shape[1] // k_BKTH.shape[1]
    masks = Bands(window_keys, q_BNTH.dtype)
    for piece in pieces(_checked(bounds, q_BNTH), q_BNTH.shape[2], window_keys):
        mask_ts = masks.of(piece)
        q, k, v = _queries(q_BNTH, piece, groups), _keys(k_BKTH, piece, groups), _keys(v_BKTH, piece, groups)
        y, lse = _forward(q, k, v, 0.0, mask_ts is None, attn_mask=mask_ts, scale=scale)
        _queries(y_BNTH, piece, groups).copy_(y)
        _queries(lse_BNT, piece, groups).copy_(lse)
    return y_BNTH, lse_BNT


@_packed.register_fake
def _fake(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds: Tensor, window_keys: int, scale: float) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, _ = q_BNTH.shape
    dtype = torch.float64 if q_BNTH.dtype == torch.float64 else torch.float32
    return _stored_by_token(q_BNTH), q_BNTH.new_empty((batch, tokens, heads), dtype=dtype).transpose(1, 2)


@torch.library.custom_op("phial::packed_attention_backward", mutates_args=(), device_types="cpu")
def _packed_backward(
    dy_BNTH: Tensor,
    q_BNTH: Tensor,
    k_BKTH: Tensor,
    v_BKTH: Tensor,
    y_BNTH: Tensor,
    lse_BNT: Tensor,
    bounds: Tensor,
    window_keys: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, each stored by token."""
    dy_BNTH, q_BNTH, k_BKTH, v_BKTH = _dense_rows(dy_BNTH), _dense_rows(q_BNTH), _dense_rows(k_BKTH), _dense_rows(v_BKTH)
    dtype, groups = q_BNTH.dtype, q_BNTH.shape[1] // k_BKTH.shape[1]
    dq_BNTH = _stored_by_token(q_BNTH)
    # Keys of a window belong to several chunks, whose shares are summed: in float32, so that only the sum is rounded.
    sums = torch.promote_types(dtype, torch.float32) if window_keys else dtype
    dk_BKTH, dv_BKTH = _stored_by_token(k_BKTH, sums), _stored_by_token(v_BKTH, sums)
    masks = Bands(window_keys, dtype)
    for piece in pieces(_checked(bounds, q_BNTH), q_BNTH.shape[2], window_keys):
        mask_ts = masks.of(piece)
        dy, q, y, lse = (_queries(x, piece, groups) for x in (dy_BNTH, q_BNTH, y_BNTH, lse_BNT))
        k, v = _keys(k_BKTH, piece, groups), _keys(v_BKTH, piece, groups)
        if dtype == torch.bfloat16 and piece.end - piece.first_query < WIDEN_BELOW:
            dy, q, k, v, y = (x.float() for x in (dy, q, k, v, y))
            mask_ts = None if mask_ts is None else mask_ts.float()
        dq, dk, dv = _backward(dy, q, k, v, y, lse, 0.0, mask_ts is None, attn_mask=mask_ts, scale=scale)
        _queries(dq_BNTH, piece, groups).copy_(dq)
        _give(dk_BKTH, dk, piece, groups)
        _give(dv_BKTH, dv, piece, groups)
    return dq_BNTH, dk_BKTH.to(dtype), dv_BKTH.to(dtype)


@_packed_backward.register_fake
def _(
    dy_BNTH: Tensor,
    q_BNTH: Tensor,
    k_BKTH: Tensor,
    v_BKTH: Tensor,
    y_BNTH: Tensor,
    lse_BNT: Tensor,
    bounds: Tensor,
    window_keys: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _stored_by_token(q_BNTH), _stored_by_token(k_BKTH), _stored_by_token(v_BKTH)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q_BNTH, k_BKTH, v_BKTH, bounds, ctx.window_keys, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q_BNTH, k_BKTH, v_BKTH, *output, bounds)


def _differentiate(ctx, dy_BNTH: Tensor, _: Tensor | None) -> tuple:
    *saved, bounds = ctx.saved_tensors
    return *_packed_backward(dy_BNTH, *saved, bounds, ctx.window_keys, ctx.scale), None, None, None


_packed.register_autograd(_differentiate, setup_context=_save)


class Bands:
    """The added masks of banded pieces, (t, s): 0 for the `window_keys` keys up to the query itself, -inf for the others."""

    def __init__(self, window_keys: int, dtype: torch.dtype) -> None:
        self.window_keys = window_keys
        self.dtype = dtype
        self.made: dict[int, Tensor] = {}

    def of(self, piece: Piece) -> Tensor | None:
        """A piece's mask; None where causality is enough. It depends on the number of queries alone."""
        if not piece.banded:
            return None
        queries = piece.end - piece.first_query
        if queries not in self.made:
            # The first query's window begins at key 0 and ends at key window_keys - 1; each later one's a key further.
            offset_ts = torch.arange(queries + self.window_keys - 1) - torch.arange(queries)[:, None]
            seen_ts = (offset_ts >= 0) & (offset_ts < self.window_keys)
            self.made[queries] = torch.zeros(seen_ts.shape, dtype=self.dtype).masked_fill_(~seen_ts, -torch.inf)
        return self.made[queries]


def _queries(x_BNT: Tensor, piece: Piece, groups: int) -> Tensor:
    """A piece's queries, or values of theirs, as a view: (1, N, t, ...), or (G, K, t, ...) with a batch entry per query of a key."""
    x_1Nt = x_BNT[piece.row : piece.row + 1, :, piece.first_query : piece.end]
    return x_1Nt if groups == 1 else x_1Nt[0].unflatten(0, (-1, groups)).transpose(0, 1)


def _keys(x_BKTH: Tensor, piece: Piece, groups: int) -> Tensor:
    """A piece's keys or values as a view, (1 or G, K, s, H)."""
    x_1KsH = x_BKTH[piece.row : piece.row + 1, :, piece.first_key : piece.end]
    return x_1KsH if groups == 1 else x_1KsH.expand(groups, -1, -1, -1)


def _give(sum_BKTH: Tensor, dx_GKsH: Tensor, piece: Piece, groups: int) -> None:
    """Puts a piece's gradient of keys or values where it belongs; a banded piece meets keys that an earlier one has met."""
    if groups > 1:
        dx_GKsH = dx_GKsH.sum(0, keepdim=True, dtype=sum_BKTH.dtype)
    if not piece.banded:
        _keys(sum_BKTH, piece, 1).copy_(dx_GKsH)
        return
    met = piece.first_query - piece.first_key
    row_KTH = sum_BKTH[piece.row]
    row_KTH[:, piece.first_key : piece.first_query].add_(dx_GKsH[0, :, :met])
    row_KTH[:, piece.first_query : piece.end].copy_(dx_GKsH[0, :, met:])


def _dense_rows(x_BNTH: Tensor) -> Tensor:
    """The kernel reads a head's features as neighbours; every other stride is free."""
    return x_BNTH if x_BNTH.stride(-1) == 1 else x_BNTH.contiguous()


def _stored_by_token(x_BNTH: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room for another of the same shape, stored as (B, T, N, H): as the next matrix reads it, so that it needs no copy."""
    batch, heads, tokens, width = x_BNTH.shape
    return x_BNTH.new_empty((batch, tokens, heads, width), dtype=dtype).transpose(1, 2)


def _checked(bounds: Tensor, q_BNTH: Tensor) -> list[int]:
    """The bounds of all rows, where they cut every row."""
    batch, _, tokens, _ = q_BNTH.shape
    cuts = bounds.tolist()
    if batch > 1 and cuts[-1] == tokens:
        cuts = [row * tokens + cut for row in range(batch) for cut in cuts[:-1]] + [batch * tokens]
    grows = all(begin < end for begin, end in pairwise(cuts))
    if not grows or cuts[0] != 0 or cuts[-1] != batch * tokens or not set(range(0, batch * tokens, tokens)).issubset(cuts):
        raise ModelError(
            f"document bounds must grow from 0 to {batch * tokens} and cut {batch} rows of {tokens} tokens apart, got "
            f"{len(cuts)} from {cuts[0]} to {cuts[-1]}"
        )
    return cuts
