"""Which attention heads each rank computes, for any numbers of query heads, key heads and ranks.

Query heads are dealt in balanced blocks. Key and value heads are held in balanced blocks too, each on one rank, which owns their weights;
a rank whose queries need heads that another holds fetches those rows of the fused matrix, and the adjoint adds up what each of their users
has to say about them. So medium's 10 key heads serve 4 ranks (10 query heads and 3 key heads each) and 8 ranks (5 and 2): query work is
even, and at most two key heads per rank are computed twice. Where the ranks divide the key heads, nothing is fetched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from modeling.backends import Attend
from modeling.constants import constant
from modeling.errors import ModelError
from modeling.parallel.partition import Box, balanced, starts

# B batch, N query heads, K key/value heads, T query tokens, S key tokens, H features per head.


@dataclass(frozen=True)
class HeadShare:
    """One rank's heads: `queries` computed here, `held` the key heads whose weights lie here, `needed` those that its queries read."""

    queries: range
    held: range
    needed: range
    group: int  # query heads per key head

    @property
    def key_of_query(self) -> list[int]:
        """For each query head of this rank, its key head's place among the needed ones."""
        return [head // self.group - self.needed.start for head in self.queries]

    @property
    def regular(self) -> bool:
        """Whether every needed key head serves equally many neighbouring query heads here, as attention kernels expect."""
        if not self.queries:
            return True
        each = len(self.queries) // max(1, len(self.needed))
        return self.key_of_query == [place for place in range(len(self.needed)) for _ in range(each)]


@cache
def share_heads(num_heads: int, num_kv_heads: int, ranks: int) -> tuple[HeadShare, ...]:
    """Every rank's share."""
    if num_heads % num_kv_heads:
        raise ModelError(f"{num_heads} query heads are not a multiple of {num_kv_heads} key heads")
    group = num_heads // num_kv_heads
    queries = block_ranges(balanced(num_heads, ranks))
    held = block_ranges(balanced(num_kv_heads, ranks))
    shares = []
    for mine, kept in zip(queries, held, strict=True):
        needed = range(mine.start // group, (mine.stop - 1) // group + 1) if mine else range(0)
        shares.append(HeadShare(mine, kept, needed, group))
    return tuple(shares)


def block_ranges(lengths: Sequence[int]) -> list[range]:
    """The indices of neighbouring blocks."""
    return [range(first, first + length) for first, length in zip(starts(lengths), lengths, strict=True)]


def boxes_of(ranges: Sequence[range]) -> tuple[Box, ...]:
    """Ranges as boxes of one dim."""
    return tuple(Box((one.start if one else 0,), (len(one),)) for one in ranges)


def attend_share(attend: Attend, share: HeadShare, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float) -> Tensor:
    """A kernel on the heads of one rank, whose key heads may serve unequal numbers of queries; without heads, a result that is as empty."""
    if not share.queries:
        # Joined to what it does not use, so that the way back passes the operators that other ranks wait in.
        return q_BNTH + 0 * (k_BKSH.sum() + v_BKSH.sum())
    if not share.regular:
        places = constant(tuple(share.key_of_query), torch.int64, q_BNTH.device)
        k_BKSH, v_BKSH = k_BKSH.index_select(1, places), v_BKSH.index_select(1, places)
    return attend(q_BNTH, k_BKSH, v_BKSH, sparse, scale)
