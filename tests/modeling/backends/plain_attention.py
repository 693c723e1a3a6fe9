"""Attention by its definition in float64, with masks made by loops of its own, and the cases on which every backend is held against it."""

# B batch, T tokens, N query heads, K key/value heads, H features per head.

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """A blocksparse pattern: blocks of `size`, `local` of them near the query, and every `stride`-th one further back."""

    size: int = 16
    local: int = 2
    stride: int = 4


@dataclass(frozen=True)
class Case:
    """`documents`: the lengths of each row's documents; `padding`: how many tokens at the left of each row are none."""

    tokens: int = 200
    rows: int = 2
    heads: int = 4
    kv_heads: int = 4
    window: int | None = None
    documents: tuple[tuple[int, ...], ...] | None = None
    padding: tuple[int, ...] | None = None
    blocks: Blocks | None = None


TWO_ROWS = ((60, 130, 10), (1, 99, 100))
CASES = {
    "causal": Case(),
    "documents": Case(documents=TWO_ROWS),
    "documents-given-once": Case(documents=((60, 130, 10),)),
    "window": Case(window=70),
    "documents-window": Case(documents=TWO_ROWS, window=70),
    "gqa": Case(kv_heads=2),
    "documents-window-gqa": Case(documents=TWO_ROWS, window=70, kv_heads=2),
    "blocksparse": Case(blocks=Blocks(), kv_heads=2),
    "documents-blocksparse": Case(documents=TWO_ROWS, blocks=Blocks()),
    "padding": Case(padding=(0, 75)),
    "padding-blocksparse": Case(padding=(0, 75), blocks=Blocks()),
}
PLAIN_ROWS = [name for name, case in CASES.items() if case.blocks is None and case.padding is None]


def sees(case: Case, row: int, head: int, query: int, key: int) -> bool:
    """Whether that query sees that key."""
    start = 0
    if case.documents is not None:
        ends, starts = 0, {}
        for length in case.documents[row if len(case.documents) > 1 else 0]:
            starts.update(dict.fromkeys(range(ends, ends + length), ends))
            ends += length
        if starts[query] != starts[key]:
            return False
        start = starts[query]
    if case.padding is not None:
        start = case.padding[row]
        if key < start:
            return False
    if key > query or (case.window is not None and query - key >= case.window):
        return False
    if case.blocks is None:
        return True
    query_block, key_block = (query - start) // case.blocks.size, (key - start) // case.blocks.size
    step = max(1, case.blocks.stride // case.heads)
    return query_block - key_block < case.blocks.local or (key_block + head * step + 1) % case.blocks.stride == 0


@lru_cache(maxsize=32)
def plain_mask(case: Case) -> Tensor:
    """Bool (B, N, T, T)."""
    heads = range(case.heads if case.blocks is not None else 1)
    span = range(case.tokens)
    rows = [[[[sees(case, b, n, q, k) for k in span] for q in span] for n in heads] for b in range(case.rows)]
    return torch.tensor(rows).expand(-1, case.heads, -1, -1)


def real_queries(case: Case) -> Tensor:
    """Bool (B, T): queries that are no padding; what is computed for the others is read by nobody."""
    first_B = torch.tensor(case.padding or (0,) * case.rows)
    return torch.arange(case.tokens)[None] >= first_B[:, None]


def plain_attention(case: Case, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, scale: float) -> Tensor:
    """(B, N, T, H) in float64; zero where a query is padding."""
    heads = [n * case.kv_heads // case.heads for n in range(case.heads)]
    q_BNTH, k_BNTH, v_BNTH = q_BNTH.double(), k_BKTH.double()[:, heads], v_BKTH.double()[:, heads]
    real_B1T1 = real_queries(case)[:, None, :, None].to(q_BNTH.device)
    scores_BNTT = torch.einsum("bnqh,bnkh->bnqk", q_BNTH, k_BNTH) * scale
    seen_BNTT = plain_mask(case).to(q_BNTH.device) | ~real_B1T1
    weights_BNTT = scores_BNTT.masked_fill(~seen_BNTT, -torch.inf).softmax(-1)
    return torch.einsum("bnqk,bnkh->bnqh", weights_BNTT, v_BNTH) * real_B1T1
