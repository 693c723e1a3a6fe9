"""A Cartesian grid of ranks with named axes, and the groups of ranks along its axes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod

import torch
import torch.distributed as dist

from modeling.errors import ModelError


@dataclass(frozen=True)
class Group:
    """Ranks that communicate, in an order; `index` is this rank's place among them."""

    ranks: tuple[int, ...]
    index: int
    process_group: dist.ProcessGroup | None = field(repr=False, default=None)

    @property
    def size(self) -> int:
        return len(self.ranks)


ALONE = Group((0,), 0)


class Mesh:
    """`Mesh({"data": 2, "tensor": 4})`: all ranks in a grid, the last axis counting fastest. A rank is a process; an axis is a dim of
    the grid.

    On one rank torch.distributed need not be started. Groups are made when first asked for, by all ranks together: every rank must ask
    for the same ones in the same order, as it does when all build the same model.
    """

    def __init__(self, axes: Mapping[str, int]) -> None:
        for name, length in axes.items():
            if length < 1:
                raise ModelError(f"mesh axis {name!r} has the length {length}; at least 1 is needed")
        self.axes = dict(axes)
        started = dist.is_available() and dist.is_initialized()
        world = dist.get_world_size() if started else 1
        if prod(self.axes.values()) not in (1, world):
            shown = " x ".join(f"{name} {length}" for name, length in self.axes.items()) or "no axes"
            raise ModelError(f"the mesh ({shown}) has {prod(self.axes.values())} places for {world} ranks")
        self.rank = dist.get_rank() if started else 0
        # A mesh of one place is this rank alone, whatever others there are.
        ranks = [self.rank] if prod(self.axes.values()) == 1 else range(world)
        self._rank_at = dict(zip(product(*(range(length) for length in self.axes.values())), ranks, strict=True))
        self._place = next(place for place, rank in self._rank_at.items() if rank == self.rank)
        self._groups: dict[tuple[str, ...], Group] = {}

    def size(self, *names: str) -> int:
        """How many ranks lie along the axes; an axis that the mesh does not have has the length 1."""
        return prod(self.axes.get(name, 1) for name in names)

    def coordinate(self, name: str) -> int:
        """This rank's place along the axis."""
        return dict(zip(self.axes, self._place, strict=True)).get(name, 0)

    def group(self, *names: str) -> Group:
        """The ranks that differ from this one along these axes alone, this one included; the last axis named counts fastest."""
        names = tuple(name for name in names if name in self.axes)
        if names not in self._groups:
            self._groups[names] = self._make(names)
        return self._groups[names]

    def _make(self, names: tuple[str, ...]) -> Group:
        at = list(self.axes)
        free = [at.index(name) for name in names]
        lines: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = {}
        for place, rank in self._rank_at.items():
            fixed = tuple(one for axis, one in enumerate(place) if axis not in free)
            lines.setdefault(fixed, []).append((tuple(place[axis] for axis in free), rank))
        found: Group | None = None
        for line in lines.values():
            ranks = tuple(rank for _, rank in sorted(line))
            # Ranks that are not in the group take part in making it, in the same order everywhere.
            process_group = make_process_group(ranks)
            if self.rank in ranks:
                found = Group(ranks, ranks.index(self.rank), process_group)
        assert found is not None
        return found


def make_process_group(ranks: tuple[int, ...]) -> dist.ProcessGroup | None:
    """torch's group of those ranks, whose members it orders by number; None for one rank, which has nobody to talk to."""
    if len(ranks) == 1:
        return None
    if sorted(ranks) == list(range(dist.get_world_size())):
        return dist.group.WORLD
    made = dist.new_group(sorted(ranks))
    if not isinstance(made, dist.ProcessGroup):
        return None
    if "nccl" in dist.get_backend_config(made):
        # Messages between two ranks may be a group's first use only if all its ranks take part; this is a use that they do.
        dist.barrier(made, device_ids=[torch.cuda.current_device()])
    return made


def alone() -> Mesh:
    """A mesh of this rank alone."""
    return Mesh({})
