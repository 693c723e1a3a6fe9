"""Which keys each query sees: causality, a sliding window, packed documents, left padding, blocksparse layers.

Every attention backend computes the same thing from a `Visible`; `dense_mask` is its definition, and what the others are tested against.
"""

# B batch, T query tokens, S key tokens, N query heads, D documents.

from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.config import BlockSparse
from modeling.constants import constant


@dataclass(frozen=True, kw_only=True)
class Visible:
    """What holds for one forward pass. The queries are the last `num_queries` of `num_keys` neighbouring tokens.

    window_keys  keys a query sees, itself included; None: all earlier ones
    runs_BT      packed rows: the number of each token's document, counted from 0 in every row; then queries and keys are the same tokens
    first_B      left-padded rows: the index of each row's first real key
    """

    num_queries: int
    num_keys: int
    window_keys: int | None = None
    runs_BT: Tensor | None = None
    first_B: Tensor | None = None

    @property
    def window(self) -> int | None:
        """The window where it hides any key at all."""
        return self.window_keys if self.window_keys is not None and self.num_keys >= self.window_keys else None

    @property
    def plain(self) -> bool:
        """Whether causality says it all, with the queries being every key or the newest one."""
        return self.window is None and self.runs_BT is None and self.first_B is None and self.num_queries in (1, self.num_keys)


def document_runs(documents_BT: Tensor) -> Tensor:
    """Numbers the documents of a row by where their id changes, so that an id that comes back later is another document."""
    changes_BT = torch.zeros_like(documents_BT)
    changes_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return changes_BT.cumsum(-1)


def document_positions(documents_BT: Tensor) -> Tensor:
    """Positions that restart at 0 with every document, (B, T)."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    starts_BT = torch.zeros_like(documents_BT)
    starts_BT[:, 1:] = torch.where(documents_BT[:, 1:] != documents_BT[:, :-1], index_T[1:], 0)
    return index_T - starts_BT.cummax(-1).values


def document_bounds(runs_BT: Tensor) -> Tensor:
    """Where documents begin and the last one ends, in the rows laid end to end: int32 (D + 1,), from 0 to B * T; a row always begins one.

    Its length depends on the values, so on an accelerator this waits for them: once per forward pass. Every batch has another length, and
    torch.compile is told so: it would compile the layers anew for each number of documents, and after a few run them uncompiled.
    """
    begins_BT = torch.ones_like(runs_BT, dtype=torch.bool)
    begins_BT[:, 1:] = runs_BT[:, 1:] != runs_BT[:, :-1]
    inner_D = begins_BT.flatten().nonzero().flatten()
    bounds_D = torch.cat((inner_D, inner_D.new_full((1,), runs_BT.numel()))).int()
    torch._dynamo.maybe_mark_dynamic(bounds_D, 0)
    return bounds_D


def dense_mask(visible: Visible, device: torch.device, sparse: BlockSparse | None = None, num_heads: int = 1) -> Tensor:
    """True where query t sees key s: (1 or B, 1, T, S), or (1 or B, N, T, S) for a blocksparse layer. It takes B * T * S values or more.

    Blocks are counted from the start of a document, or from the first real token of a padded row.
    """
    total, first = visible.num_keys, visible.num_keys - visible.num_queries
    query_T1 = torch.arange(first, total, device=device)[:, None]
    key_S = torch.arange(total, device=device)
    seen_TS = key_S <= query_T1
    if visible.window is not None:
        seen_TS = (key_S > query_T1 - visible.window) & seen_TS
    seen_BNTS = seen_TS[None, None]
    if visible.runs_BT is not None:
        runs_BT = visible.runs_BT
        seen_BNTS = ((runs_BT[:, :, None] == runs_BT[:, None, :]) & seen_TS)[:, None]
    if visible.first_B is not None:
        # A padded query sees itself, so that its row of the softmax is not empty; nothing reads what comes of it.
        real_BTS = (key_S >= visible.first_B[:, None, None]) | (key_S == query_T1)
        seen_BNTS = seen_BNTS & real_BTS[:, None]
    return seen_BNTS if sparse is None else seen_BNTS & sparse_mask(visible, sparse, num_heads, device)


def key_positions(visible: Visible, device: torch.device) -> Tensor:
    """The place of every key in its document or row, (1 or B, S); negative for padding."""
    if visible.runs_BT is not None:
        return document_positions(visible.runs_BT)
    key_1S = torch.arange(visible.num_keys, device=device)[None]
    return key_1S if visible.first_B is None else key_1S - visible.first_B[:, None]


def sparse_mask(visible: Visible, sparse: BlockSparse, num_heads: int, device: torch.device) -> Tensor:
    """The block pattern alone, (1 or B, N, T, S): local or vertical blocks, whatever else hides a key."""
    block_BS = key_positions(visible, device).clamp(min=0) // sparse.block
    key_B1S, query_BT1 = block_BS[:, None, :], block_BS[:, -visible.num_queries :, None]
    local_BTS = query_BT1 - key_B1S < sparse.local_blocks
    offset_N = constant(tuple(sparse.head_offset(head, num_heads) for head in range(num_heads)), torch.int64, device)
    vertical_BN1S = (key_B1S[:, None] + offset_N[:, None, None]) % sparse.vertical_stride == 0
    return local_BTS[:, None] | vertical_BN1S
