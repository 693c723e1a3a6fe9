"""A linear operator between spaces of partitioned tensors, with its adjoint; the one place where communication meets autograd."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.space import Space, check_joined

# What remains to be done of an operator that has been started: waits for what is on its way and gives the result.
Wait = Callable[[], Tensor]


class Operator(ABC):
    """y = F x from `domain` to `range`.

    A subclass writes `launch`, which starts F on plain tensors, and `adjoint`, the operator F* with <F x, y> = <x, F* y>. Autograd
    follows: the gradient of F is F*, so nothing else in the house writes a backward pass for communication. An operator never changes
    its argument, and its result may be the argument itself, so nobody writes into a result.
    """

    name: ClassVar[str] = ""
    local: ClassVar[bool] = False  # acts on what a rank holds, whatever that is part of
    does_nothing: bool = False  # F x is x itself on every rank: nothing is called, kept or copied, forwards and backwards
    domain: Space
    range: Space

    @abstractmethod
    def launch(self, x: Tensor) -> Wait:
        """Starts F x; what is sent is under way when it returns."""

    @property
    @abstractmethod
    def adjoint(self) -> "Operator":
        """F*, from `range` to `domain`."""

    def __call__(self, x: Tensor) -> Tensor:
        """F x, known to autograd."""
        if self.does_nothing:
            return x
        return _Apply.apply(x, self)  # type: ignore[no-any-return]

    def start(self, x: Tensor) -> "Started":
        """F x, of which the communication is under way while the caller computes; `.finish()` gives it.

        On the way back, F* starts where `finish` was called and is waited for where `start` was. Differentiable once; a call is so twice.
        """
        return Started(self, x)

    def __matmul__(self, first: "Operator") -> "Operator":
        """self after `first`, where what leaves the one may enter the other."""
        return Chain([first, self])


class Chain(Operator):
    """Several operators one after another; the adjoint takes their adjoints in reverse."""

    name = "Chain"

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators: list[Operator] = [inner for one in operators for inner in (one.operators if isinstance(one, Chain) else [one])]
        self.domain, self.range = joined_ends(self.operators)
        self.does_nothing = all(one.does_nothing for one in self.operators)

    def launch(self, x: Tensor) -> Wait:
        """Overlap is possible for the first operator only; the others follow when it is waited for."""
        wait = self.operators[0].launch(x)

        def finish() -> Tensor:
            y = wait()
            for operator in self.operators[1:]:
                y = operator.launch(y)()
            return y

        return finish

    @property
    def adjoint(self) -> Operator:
        return Chain([one.adjoint for one in reversed(self.operators)])


def joined_ends(operators: Sequence[Operator]) -> tuple[Space, Space]:
    """The spaces at the ends of a chain, once every operator has been found to fit what the ones before it have made.

    Operators along other mesh axes act on other coordinates, so each is held against the last one on its own ranks. Local operators keep
    the kind of what enters them, and change its sizes.
    """
    held: dict[frozenset[int], Space] = {}
    first: Space | None = None
    last: Space | None = None
    for number, operator in enumerate(operators):
        if operator.local:
            held = {ranks: space.of_any_size for ranks, space in held.items()}
            last = None if last is None else last.of_any_size
            continue
        ranks = frozenset(operator.domain.group.ranks)
        for others, space in held.items():
            if ranks == others or len(ranks & others) > 1:
                check_joined(space, operator.domain)
        held[ranks] = last = operator.range
        first = first or (operator.domain if number == 0 else operator.domain.of_any_size)
    return first or operators[0].domain, last or operators[-1].range


class _Apply(torch.autograd.Function):
    """F on the way there, F* on the way back; both through `Operator.__call__`, so the gradient can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Operator) -> Tensor:
        ctx.operator = operator
        y = operator.launch(x)()
        return y.view_as(y) if y is x else y  # autograd would take x itself for an argument changed in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.operator.adjoint(grads[0]), None


class Started:
    """An operator under way. `finish` is called once.

    Its autograd nodes know it, so it lets go of what leads to them: in a circle the tensors of a step would stay until Python's collector
    comes by, and the next step would need memory of its own.
    """

    def __init__(self, operator: Operator, x: Tensor) -> None:
        self.operator = operator
        self.there: Wait | None = None
        self.back: Wait | None = None
        self.unchanged = x if operator.does_nothing else None
        self.token: Tensor | None = None if operator.does_nothing else _Start.apply(x, self)

    def finish(self) -> Tensor:
        """F x."""
        if self.unchanged is not None:
            return self.unchanged
        token, self.token = self.token, None
        return _Finish.apply(token, self)  # type: ignore[no-any-return]


class _Start(torch.autograd.Function):
    """The first half. A token without elements that matter joins the halves, so that the way back passes both in reverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, started: Started) -> Tensor:
        ctx.started = started
        started.there = started.operator.launch(x)
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        back, ctx.started.back = ctx.started.back, None
        assert back is not None  # the second half is the token's only reader
        return back(), None


class _Finish(torch.autograd.Function):
    """The second half."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, started: Started) -> Tensor:
        ctx.started, ctx.like = started, token.detach()
        there, started.there = started.there, None
        assert there is not None
        y = there()
        return y.view_as(y)  # the result may be the very tensor that was started from, whose history is another

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            # Nothing would say so otherwise: what the second gradient owes to this operator would be missing from it.
            raise ModelError(f"{ctx.started.operator.name} was started, so its gradient cannot be differentiated again; call it instead")
        ctx.started.back = ctx.started.operator.adjoint.launch(grads[0])
        return torch.zeros_like(ctx.like), None


def done(y: Tensor) -> Wait:
    """The rest of an operator that has nothing to wait for."""
    return lambda: y
