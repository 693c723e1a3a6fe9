"""How pieces travel between the ranks of a group: one all-to-all for all of them, or messages to the few ranks that are concerned."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from modeling.parallel.ledger import Cost, record
from modeling.parallel.mesh import Group

# Shape of a piece; None where nothing comes.
Shape = tuple[int, ...]


def exchange(
    name: str, group: Group, outgoing: Sequence[Tensor | None], incoming: Sequence[Shape | None], like: Tensor, few: bool
) -> Callable[[], list[Tensor | None]]:
    """Sends `outgoing[j]` to member j and gives what the members have sent, `incoming[j]` being its shape; the own places are not looked
    at.

    Both sides know the shapes by index arithmetic, and empty pieces are None. `few` is for patterns where each rank has a few partners, and
    must be the same on all ranks: messages go to the partners alone, so that ranks that exchange nothing need not take part.
    """
    sent = [piece for j, piece in enumerate(outgoing) if j != group.index and piece is not None]
    record(name, Cost(sum(piece.numel() * piece.element_size() for piece in sent), len(sent)))
    flat_in = [None if shape is None or j == group.index else new_flat(like, shape) for j, shape in enumerate(incoming)]
    flat_out = [None if piece is None or j == group.index else flat(piece) for j, piece in enumerate(outgoing)]
    wait = (messages if few else all_to_all)(group, flat_out, flat_in, like)

    def finish() -> list[Tensor | None]:
        received = wait()
        return [None if one is None else shaped(one, shape, like) for one, shape in zip(received, incoming, strict=True)]

    return finish


def flat(piece: Tensor) -> Tensor:
    """Contiguous, one-dimensional and real: what every backend can send."""
    whole = piece.resolve_conj().resolve_neg().contiguous().view(-1)
    return torch.view_as_real(whole).view(-1) if whole.is_complex() else whole


def new_flat(like: Tensor, shape: Shape) -> Tensor:
    """Room for a piece."""
    return flat(like.new_empty(prod(shape)))


def shaped(received: Tensor, shape: Shape | None, like: Tensor) -> Tensor:
    """A received piece in its own shape and dtype."""
    assert shape is not None
    return (torch.view_as_complex(received.view(-1, 2)) if like.is_complex() else received).view(shape)


def messages(group: Group, outgoing: list[Tensor | None], incoming: list[Tensor | None], like: Tensor) -> Callable[[], list[Tensor | None]]:
    """One message per partner. Messages between two ranks arrive in the order in which they were sent."""
    ops = [
        dist.P2POp(operation, piece, group.ranks[j], group.process_group)
        for operation, pieces in ((dist.isend, outgoing), (dist.irecv, incoming))
        for j, piece in enumerate(pieces)
        if piece is not None
    ]
    works = dist.batch_isend_irecv(ops) if ops else []

    def wait() -> list[Tensor | None]:
        for work in works:
            work.wait()
        # Named here, so that what is sent lives as long as it is under way.
        del ops[:]
        return incoming

    return wait


def all_to_all(
    group: Group, outgoing: list[Tensor | None], incoming: list[Tensor | None], like: Tensor
) -> Callable[[], list[Tensor | None]]:
    """One collective call in which every member takes part, whatever it sends."""
    order = sorted(range(group.size), key=lambda j: group.ranks[j])  # torch orders a group's members by their rank
    send_counts = [0 if outgoing[j] is None else outgoing[j].numel() for j in order]  # type: ignore[union-attr]
    take_counts = [0 if incoming[j] is None else incoming[j].numel() for j in order]  # type: ignore[union-attr]
    empty = flat(like.new_empty(0))
    pieces = [outgoing[j] for j in order if outgoing[j] is not None]
    sent = torch.cat(pieces) if len(pieces) > 1 else pieces[0] if pieces else empty  # type: ignore[arg-type]
    taken = empty.new_empty(sum(take_counts))
    work = dist.all_to_all_single(taken, sent, take_counts, send_counts, group.process_group, async_op=True)

    def wait() -> list[Tensor | None]:
        nonlocal sent
        assert work is not None
        work.wait()
        sent = empty
        cuts = pairwise(accumulate(take_counts, initial=0))
        found: list[Tensor | None] = [None] * group.size
        for j, (first, last) in zip(order, cuts, strict=True):
            if incoming[j] is not None:
                found[j] = taken[first:last]
        return found

    return wait
