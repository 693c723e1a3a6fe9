"""Attention over tokens that lie on several ranks, three ways behind one call; each takes and gives this rank's tokens.

ulysses  tokens to heads and back, a Repartition each way (arXiv 2309.14509): any backend, window, documents, blocksparse layers
halo     the last window_keys - 1 keys before this rank's tokens come from the ranks that hold them: bytes grow with the window alone
ring     keys and values go round (arXiv 2310.01889), see `modeling.parallel.ring`
"""

# B batch, N query heads, K key/value heads, T all tokens of a row, t this rank's, S keys seen here, H features per head.

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from modeling.backends import start_pass
from modeling.backends.masks import spread
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.parallel.context_tokens import TokenShare
from modeling.parallel.exchange import Boxes, Fetch
from modeling.parallel.heads import HeadShare, attend_share, boxes_of, share_heads
from modeling.parallel.mesh import Group
from modeling.parallel.moves import halo_dim, repartition
from modeling.parallel.operator import Operator
from modeling.parallel.partition import Box, tiles
from modeling.visible import Visible

QUERIES = 512  # of a banded chunk: its scores and mask are what is in memory at once


class Ulysses:
    """Every rank attends over all tokens with some of the heads."""

    def __init__(
        self, group: Group, shares: list[TokenShare], backend: str, config: DecoderConfig, visible: Visible, device: torch.device
    ) -> None:
        self.group = group
        self.lengths = [share.count for share in shares]
        self.attend = start_pass(backend, config, visible, device)
        self.plans: dict[tuple[int, int], tuple[tuple[HeadShare, ...], Operator, Operator]] = {}

    def plan(self, num_heads: int, num_kv_heads: int) -> tuple[tuple[HeadShare, ...], Operator, Operator]:
        """The heads of every rank, and the ways there of queries and of keys; made at the first layer."""
        if (num_heads, num_kv_heads) not in self.plans:
            shares = share_heads(num_heads, num_kv_heads, self.group.size)
            tokens = tiles([(num_heads,), self.lengths])
            heads = tiles([[len(share.queries) for share in shares], (sum(self.lengths),)])
            ways = repartition(self.group, tokens, heads, (1, 2)), keys_for_heads(self.group, self.lengths, shares, num_kv_heads)
            self.plans[num_heads, num_kv_heads] = shares, *ways
        return self.plans[num_heads, num_kv_heads]

    def __call__(self, q_BNtH: Tensor, k_BKtH: Tensor, v_BKtH: Tensor, sparse: bool, scale: float) -> Tensor:
        shares, there, keys_there = self.plan(q_BNtH.shape[1], k_BKtH.shape[1])
        q_BnTH = there(q_BNtH)
        kv_2BkTH = keys_there(torch.stack((k_BKtH, v_BKtH)))
        y_BnTH = attend_share(self.attend, shares[self.group.index], q_BnTH, kv_2BkTH[0], kv_2BkTH[1], sparse, scale)
        return there.adjoint(y_BnTH)


def keys_for_heads(group: Group, lengths: list[int], shares: Sequence[HeadShare], num_kv_heads: int) -> Fetch:
    """Keys and values (2, B, K, t, H) of some tokens and all heads to all tokens of the heads that each rank's queries need."""
    sources = tiles([(num_kv_heads,), lengths])
    targets = [Box((*box.start, 0), (*box.size, sum(lengths))) for box in boxes_of([share.needed for share in shares])]
    return Fetch(Boxes("Repartition", group, (2, 3), sources, targets, few=False))


class HaloWindow:
    """Sliding-window attention whose missing keys come from the ranks before, however many the window spans."""

    def __init__(self, group: Group, shares: list[TokenShare], visible: Visible) -> None:
        if visible.window_keys is None:
            raise ModelError("context parallelism 'halo' is for decoders with a window; use 'ring' or 'ulysses'")
        lengths = [share.count for share in shares]
        self.window, mine = visible.window_keys, shares[group.index].runs[0]
        self.halo = halo_dim(group, 3, lengths, [(self.window - 1, 0)] * group.size)
        self.first_query, self.first_key = mine.start, max(0, mine.start - self.window + 1) if mine else mine.start
        self.runs_BT = visible.runs_BT

    def __call__(self, q_BNtH: Tensor, k_BKtH: Tensor, v_BKtH: Tensor, sparse: bool, scale: float) -> Tensor:
        kv_2BKSH = self.halo(torch.stack((k_BKtH, v_BKtH)))
        if not q_BNtH.shape[2]:
            return q_BNtH + 0 * kv_2BKSH.sum()
        groups = q_BNtH.shape[1] // k_BKtH.shape[1]
        k_BNSH, v_BNSH = spread(kv_2BKSH[0], groups), spread(kv_2BKSH[1], groups)
        done = [self.chunk(q_BNtH, k_BNSH, v_BNSH, start, scale) for start in range(0, q_BNtH.shape[2], QUERIES)]
        return torch.cat(done, 2)

    def chunk(self, q_BNtH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, start: int, scale: float) -> Tensor:
        """Some queries over the keys that any of them sees."""
        first = self.first_query + start
        stop = min(first + QUERIES, self.first_query + q_BNtH.shape[2])
        key = max(self.first_key, first - self.window + 1)
        mask_BNts = sees(range(first, stop), range(key, stop), self.window, self.runs_BT, q_BNtH.device)
        keys = slice(key - self.first_key, stop - self.first_key)
        return functional.scaled_dot_product_attention(
            q_BNtH[:, :, start : start + stop - first], k_BNSH[:, :, keys], v_BNSH[:, :, keys], attn_mask=mask_BNts, scale=scale
        )


def sees(queries: range, keys: range, window: int | None, runs_BT: Tensor | None, device: torch.device) -> Tensor:
    """Whether each of some neighbouring queries of a row sees each of some neighbouring keys, (1 or B, 1, t, s)."""
    query_t1 = torch.arange(queries.start, queries.stop, device=device)[:, None]
    key_s = torch.arange(keys.start, keys.stop, device=device)
    seen_ts = key_s <= query_t1
    if window is not None:
        seen_ts = seen_ts & (key_s > query_t1 - window)
    if runs_BT is None:
        return seen_ts[None, None]
    same_Bts = runs_BT[:, queries.start : queries.stop, None] == runs_BT[:, None, keys.start : keys.stop]
    return (same_Bts & seen_ts)[:, None]
