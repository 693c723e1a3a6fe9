"""Which tokens of a row each rank of the axis "context" holds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.parallel.mesh import Group
from modeling.parallel.partition import balanced, starts


@dataclass(frozen=True)
class TokenShare:
    """One rank's tokens: runs of neighbouring places of the row, in the order in which it holds them."""

    runs: tuple[range, ...]

    @property
    def count(self) -> int:
        return sum(len(run) for run in self.runs)

    def indices(self, device: torch.device | None = None) -> Tensor:
        """The places, (t,)."""
        return torch.cat([torch.arange(run.start, run.stop, device=device) for run in self.runs])

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """This rank's tokens of a tensor that holds the whole row."""
        parts = [x.narrow(dim, run.start, len(run)) for run in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def share_tokens(tokens: int, group: Group, zigzag: bool) -> list[TokenShare]:
    """Every rank's share of a row: a balanced block, or with `zigzag` the r-th block from each end of 2 k.

    Late tokens see more keys than early ones. A ring's ranks work at the same time on blocks that are as good as equal when each has an
    early and a late one.
    """
    parts = 2 * group.size if zigzag and group.size > 1 else group.size
    lengths = balanced(tokens, parts)
    runs = [range(first, first + length) for first, length in zip(starts(lengths), lengths, strict=True)]
    if parts == group.size:
        return [TokenShare((run,)) for run in runs]
    return [TokenShare((runs[member], runs[parts - 1 - member])) for member in range(group.size)]
