"""One forward pass of a decoder over its ranks: which tokens are here, how blocks are entered, how attention sees the other tokens."""

# B batch, T all tokens of a row, t this rank's, V vocabulary.

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from modeling.backends import Attend, start_pass
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.parallel.context_tokens import TokenShare, share_tokens
from modeling.parallel.heads import HeadShare, share_heads
from modeling.parallel.stream import Parallel, Stream
from modeling.parallel.sums import Gather
from modeling.visible import Visible


def check_place(config: DecoderConfig, parallel: Parallel, backend: str) -> None:
    """Refuses what a decoder of this configuration cannot do over these ranks."""
    tensor, context = parallel.tensor_group.size, parallel.context_group.size
    if tensor > 1 and (config.embedding_dropout or config.feed_forward_dropout):
        raise ModelError(
            "dropout over several ranks of the axis 'tensor' would differ between them; set embedding_dropout and feed_forward_dropout to 0"
        )
    if context > 1 and parallel.context == "halo" and config.window_keys is None:
        raise ModelError("context parallelism 'halo' is for decoders with a window; use 'ring' or 'ulysses'")
    if context > 1 and parallel.context != "ulysses" and config.blocksparse is not None:
        raise ModelError(f"context parallelism {parallel.context!r} has no blocksparse layers; use 'ulysses'")
    if context > 1 and parallel.context != "ulysses" and backend != "sdpa":
        raise ModelError(f"context parallelism {parallel.context!r} has kernels of its own, named sdpa; {backend!r} is for 'ulysses'")
    if config.blocksparse is not None:
        for share in kernel_shares(config, parallel):
            check_pattern(config, share)


def check_pattern(config: DecoderConfig, heads: range) -> None:
    """Refuses heads of a blocksparse decoder whose kernel, which counts heads from 0, would give them another head's blocks."""
    sparse = config.blocksparse
    assert sparse is not None
    for place, head in enumerate(heads):
        if sparse.head_offset(head, config.num_heads) != sparse.head_offset(place, len(heads)):
            raise ModelError(
                f"blocksparse heads {heads.start} to {heads.stop - 1} of {config.num_heads} on one rank would see the blocks of others; "
                f"the heads of a rank must be a multiple of vertical_stride={sparse.vertical_stride}, or all of them"
            )


def kernel_shares(config: DecoderConfig, parallel: Parallel) -> list[range]:
    """The query heads of every kernel on any rank, so that all ranks agree: split over "tensor", and again by Ulysses over "context"."""
    ranks = parallel.context_group.size if parallel.context == "ulysses" else 1
    return [
        range(outer.queries.start + inner.queries.start, outer.queries.start + inner.queries.stop)
        for outer in share_heads(config.num_heads, config.num_kv_heads, parallel.tensor_group.size)
        for inner in inner_shares(outer, ranks)
        if inner.queries
    ]


def inner_shares(mine: HeadShare, ranks: int) -> Sequence[HeadShare]:
    """How Ulysses deals the heads of one tensor rank, counted from 0; key heads that serve unequal numbers stand once per query head."""
    heads = len(mine.queries)
    return share_heads(heads, len(mine.needed) if mine.regular else heads, ranks) if heads else []


def kernel_config(config: DecoderConfig, share: HeadShare) -> DecoderConfig:
    """The configuration that a kernel sees which computes these heads alone."""
    heads = len(share.queries)
    if heads in (0, config.num_heads):
        return config
    keys = len(share.needed) if share.regular else heads
    return replace(config, num_heads=heads, num_kv_heads=keys, hidden_size=heads * config.head_dim)


@dataclass(frozen=True)
class Place:
    """`tokens` are those of a whole row."""

    config: DecoderConfig
    parallel: Parallel
    tokens: int

    @cached_property
    def shares(self) -> list[TokenShare]:
        """Every context rank's tokens; in a ring an early and a late block each, so that causality leaves all of them equal work."""
        return share_tokens(self.tokens, self.parallel.context_group, zigzag=self.parallel.context == "ring")

    @property
    def mine(self) -> TokenShare:
        return self.shares[self.parallel.context_group.index]

    @cached_property
    def stream(self) -> Stream:
        return self.parallel.stream(self.mine.count)

    @property
    def alone(self) -> bool:
        return self.parallel.context_group.size == 1

    def cut(self, x_BT: Tensor) -> Tensor:
        """This rank's tokens of what every rank has whole."""
        return x_BT if self.alone else self.mine.cut(x_BT, 1)

    def join(self, x_Bt: Tensor) -> Tensor:
        """The whole rows, shared, from every rank's tokens."""
        if self.alone:
            return x_Bt
        group = self.parallel.context_group
        joined_BT = Gather(group, 1, tuple(share.count for share in self.shares))(x_Bt)
        order_T = torch.cat([share.indices(x_Bt.device) for share in self.shares])
        return joined_BT.index_select(1, order_T.argsort())

    def attend(self, backend: str, visible: Visible, device: torch.device) -> Attend:
        """The kernel, which takes and gives this rank's tokens and heads."""
        share = share_heads(self.config.num_heads, self.config.num_kv_heads, self.parallel.tensor_group.size)[
            self.parallel.tensor_group.index
        ]
        here = kernel_config(self.config, share)
        if self.alone:
            return start_pass(backend, here, visible, device)
        return CONTEXT[self.parallel.context](self, backend, here, visible, device)


def ulysses(place: Place, backend: str, config: DecoderConfig, visible: Visible, device: torch.device) -> Attend:
    from modeling.parallel.context import Ulysses

    shares = share_heads(config.num_heads, config.num_kv_heads, place.parallel.context_group.size)
    config = kernel_config(config, shares[place.parallel.context_group.index])
    return Ulysses(place.parallel.context_group, place.shares, backend, config, visible, device)


def halo(place: Place, backend: str, config: DecoderConfig, visible: Visible, device: torch.device) -> Attend:
    from modeling.parallel.context import HaloWindow

    return HaloWindow(place.parallel.context_group, place.shares, visible)


def ring(place: Place, backend: str, config: DecoderConfig, visible: Visible, device: torch.device) -> Attend:
    from modeling.parallel.ring import Ring

    return Ring(place.parallel.context_group, place.shares, visible, device)


CONTEXT: dict[str, Callable[..., Attend]] = {"ulysses": ulysses, "halo": halo, "ring": ring}
