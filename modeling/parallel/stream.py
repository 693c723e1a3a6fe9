"""How a decoder's ranks along the axis "tensor" hold the stream between blocks, and how a block is entered and left."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from modeling.errors import ModelError
from modeling.parallel.mesh import Group, Mesh, alone
from modeling.parallel.moves import all_gather
from modeling.parallel.operator import Operator
from modeling.parallel.partition import balanced
from modeling.parallel.sums import Broadcast

ContextWay = Literal["ulysses", "ring", "halo"]
CONTEXT_WAYS = ("ulysses", "ring", "halo")


@dataclass(frozen=True)
class Stream:
    """A block is entered by `enter` and left by its adjoint `leave`, which adds up the ranks' shares.

    Without sequence parallelism the stream is shared: enter is Broadcast, leave is SumReduce. With it each rank holds a part of the tokens
    (dim 1): enter is AllGather, leave ReduceScatter, and norms work on parts, as arXiv 2205.05198, section 4.2.2, has it.
    """

    enter: Operator
    leave: Operator


@dataclass(frozen=True)
class Parallel:
    """Over which ranks a decoder lies: mesh axis "tensor" splits heads, features and vocabulary, "context" splits tokens.

    Other axes ("data") hold copies that see other rows; `modeling.parallel.gradients` sums over them.

    sequence  whether the stream between blocks is split by tokens over "tensor" as well
    context   how attention sees other ranks' tokens: "ulysses" (tokens to heads and back), "ring" (keys go round), "halo" (the window's
              keys from the neighbours)
    """

    mesh: Mesh
    sequence: bool = False
    context: ContextWay = "ulysses"

    def __post_init__(self) -> None:
        if self.context not in CONTEXT_WAYS:
            raise ModelError(f"no context parallelism {self.context!r}; there is {', '.join(CONTEXT_WAYS)}")

    @property
    def tensor_group(self) -> Group:
        return self.mesh.group("tensor")

    @property
    def context_group(self) -> Group:
        return self.mesh.group("context")

    @property
    def spread(self) -> Operator:
        """What a weight that every rank holds passes through before it meets the stream: its uses on parts are copies, to be added up."""
        return Broadcast(self.tensor_group if self.sequence else self.mesh.group())

    def stream(self, tokens: int) -> Stream:
        """For rows of so many tokens on this context rank."""
        return build_stream(self.tensor_group, tokens if self.sequence else None)


@lru_cache(maxsize=256)
def build_stream(group: Group, tokens: int | None) -> Stream:
    """Parts of so many tokens, or the whole stream on every rank (None); kept, since every pass asks for it."""
    enter = Broadcast(group) if tokens is None else all_gather(group, 1, balanced(tokens, group.size))
    return Stream(enter, enter.adjoint)


ONE_RANK = Parallel(alone())
