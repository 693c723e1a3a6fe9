"""Broadcast and its adjoint SumReduce between one shared tensor and copies of it, and the sum of all copies on every rank."""

from functools import lru_cache

from torch import Tensor

from modeling.parallel.exchange import Boxes, Fetch, Return
from modeling.parallel.ledger import Cost, record
from modeling.parallel.mesh import Group
from modeling.parallel.operator import Operator, Wait, done
from modeling.parallel.partition import balanced, tiles, whole
from modeling.parallel.space import copies, shared
from modeling.parallel.transport import Shape, exchange


class Broadcast(Operator):
    """One shared tensor to a copy of its own on every rank, B x = (x, ..., x). Nothing is sent, since every rank has it already."""

    name = "Broadcast"

    def __init__(self, group: Group) -> None:
        self.group = group
        self.does_nothing = group.size == 1
        self.domain, self.range = shared(group), copies(group)

    def launch(self, x: Tensor) -> Wait:
        return done(x)

    @property
    def adjoint(self) -> Operator:
        return SumReduce(self.group)


class SumReduce(Operator):
    """Copies to their sum, which is shared: B*."""

    name = "SumReduce"

    def __init__(self, group: Group) -> None:
        self.group = group
        self.does_nothing = group.size == 1
        self.domain, self.range = copies(group), shared(group)

    def launch(self, x: Tensor) -> Wait:
        return sum_everywhere(self.name, self.group, x)

    @property
    def adjoint(self) -> Operator:
        return Broadcast(self.group)


class AllSumReduce(Operator):
    """Copies to copies of their sum, A = B B*: its own adjoint."""

    name = "AllSumReduce"

    def __init__(self, group: Group) -> None:
        self.group = group
        self.does_nothing = group.size == 1
        self.domain = self.range = copies(group)

    def launch(self, x: Tensor) -> Wait:
        return sum_everywhere(self.name, self.group, x)

    @property
    def adjoint(self) -> Operator:
        return self


class Gather(Operator):
    """Parts along one dim to the one tensor that they are, shared: a change of place only, whose adjoint `Keep` sends nothing.

    Not `all_gather`, whose result is a copy per rank and whose adjoint adds them up.
    """

    name = "Gather"

    def __init__(self, group: Group, dim: int, lengths: tuple[int, ...]) -> None:
        self.group, self.dim, self.lengths = group, dim, lengths
        self.does_nothing = group.size == 1
        self.fetch = Fetch(Boxes(self.name, group, (dim,), tiles([lengths]), [whole([sum(lengths)])] * group.size, few=False))
        self.domain, self.range = self.fetch.domain, shared(group)

    def launch(self, x: Tensor) -> Wait:
        return self.fetch.launch(x)

    @property
    def adjoint(self) -> Operator:
        return Keep(self.group, self.dim, self.lengths)


class Keep(Operator):
    """A shared tensor to this rank's part of it along one dim."""

    name = "Keep"

    def __init__(self, group: Group, dim: int, lengths: tuple[int, ...]) -> None:
        self.group, self.dim, self.lengths = group, dim, lengths
        self.does_nothing = group.size == 1
        self.boxes = tiles([lengths])
        self.range, self.domain = Gather(group, dim, lengths).domain, shared(group)

    def launch(self, x: Tensor) -> Wait:
        mine = self.boxes[self.group.index]
        return done(x.narrow(self.dim, mine.start[0], mine.size[0]))

    @property
    def adjoint(self) -> Operator:
        return Gather(self.group, self.dim, self.lengths)


def sum_everywhere(name: str, group: Group, x: Tensor) -> Wait:
    """The sum of the members' tensors on every member, the same bits on all, added in their order.

    The members' balanced shares are summed where they belong, in float32 at least, and then gathered: 2 (k - 1) / k of the tensor sent per
    rank, as many bytes as a backend's own all-reduce sends, which would sum bfloat16 in bfloat16. Two members send each other the whole
    instead, as many bytes in one round.
    """
    if group.size == 1:
        return done(x)
    if group.size == 2:
        return two_member_sum(name, group, x)
    flat = x.reshape(-1)
    plan = sum_plan(name, group, flat.numel())
    wait = Return(plan, name).launch(flat)
    return lambda: Fetch(plan).launch(wait())().view(x.shape)


@lru_cache(maxsize=256)
def sum_plan(name: str, group: Group, length: int) -> Boxes:
    """Balanced shares of so many numbers, and everything; kept, since a decoder sums tensors of a few sizes again and again."""
    return Boxes(name, group, (0,), tiles([balanced(length, group.size)]), [whole([length])] * group.size, few=False)


def two_member_sum(name: str, group: Group, x: Tensor) -> Wait:
    """Both members send the other their tensor and add their own to what they receive: equal bits, since a + b is b + a."""
    other = 1 - group.index
    outgoing: list[Tensor | None] = [None, None]
    incoming: list[Shape | None] = [None, None]
    outgoing[other], incoming[other] = x, tuple(x.shape)
    wait = exchange(name, group, outgoing, incoming, x, few=False)

    def finish() -> Tensor:
        received = wait()[other]
        assert received is not None
        record(name, Cost(added=2 * x.numel()))
        # In place: the room was made for this message, and another pass over memory would take half as long as the message itself.
        return received.add_(x)

    return finish
