"""The named movements, each `Fetch` with its boxes: repartition, all-gather, halo, shift, broadcast and gather by a root."""

from collections.abc import Sequence

from modeling.errors import ModelError
from modeling.parallel.exchange import Boxes, Fetch
from modeling.parallel.mesh import Group
from modeling.parallel.operator import Chain, Operator
from modeling.parallel.partition import Box, balanced, nothing, starts, tiles, whole


def repartition(group: Group, sources: Sequence[Box], targets: Sequence[Box], dims: Sequence[int] | None = None) -> Operator:
    """From any boxes that tile a tensor to any others, in one all-to-all; its adjoint is its inverse.

    Cartesian grids give their boxes by `grid_tiles(shape, grid)`. Uneven and empty parts are as good as others. `dims` are the dims that
    the boxes are of, by default all from the first.
    """
    plan = Boxes("Repartition", group, range(len(sources[0].start)) if dims is None else dims, sources, targets, few=False)
    if not plan.tiling:
        raise ModelError(f"Repartition: the targets {[box.size for box in targets]} do not hold every index once")
    return Fetch(plan)


def swap_dims(
    group: Group, shape: Sequence[int], split: int, into: int, lengths: tuple[Sequence[int] | None, Sequence[int] | None] = (None, None)
) -> Operator:
    """From parts along dim `split` to parts along dim `into`: an FFT's transpose, or tokens to heads.

    `shape` is the whole tensor's length along the two dims, (split, into); `lengths` the blocks where they are not balanced.
    """
    cuts = [
        balanced(shape[0], group.size) if lengths[0] is None else lengths[0],
        balanced(shape[1], group.size) if lengths[1] is None else lengths[1],
    ]
    return repartition(group, tiles([cuts[0], [shape[1]]]), tiles([[shape[0]], cuts[1]]), (split, into))


def all_gather(group: Group, dim: int, lengths: Sequence[int]) -> Operator:
    """Parts along `dim`, of those lengths, to a whole copy on every rank; the adjoint, reduce-scatter, adds the copies into parts."""
    line = tiles([lengths])
    return Fetch(Boxes("AllGather", group, (dim,), line, [whole([sum(lengths)])] * group.size, few=False))


def reduce_scatter(group: Group, dim: int, lengths: Sequence[int]) -> Operator:
    """A whole copy per rank to the parts of their sum."""
    return all_gather(group, dim, lengths).adjoint


def broadcast_from(group: Group, shape: Sequence[int], root: int = 0) -> Operator:
    """What member `root` holds alone, the others holding parts without elements, to a copy on every rank; the adjoint sums to the root."""
    held = [whole(shape) if member == root else nothing(len(shape)) for member in range(group.size)]
    return Fetch(Boxes("Broadcast", group, range(len(shape)), held, [whole(shape)] * group.size, few=False))


def scatter(group: Group, targets: Sequence[Box], root: int = 0, dims: Sequence[int] | None = None) -> Operator:
    """What member `root` holds alone to parts; the adjoint gathers them."""
    around = whole([max(stops) for stops in zip(*(box.stop for box in targets), strict=True)])
    held = [around if member == root else nothing(len(around.size)) for member in range(group.size)]
    return repartition(group, held, targets, dims)


def shift(group: Group, dim: int, lengths: Sequence[int], steps: int = 1, ring: bool = True, turned: int = 0) -> Operator:
    """Member r gets the part of member r - steps. In a ring they go round; on a line the first `steps` members get parts without elements.

    `turned` says that parts have gone round so far already: member r holds the part of member r - turned, of the length lengths[r -
    turned].
    """
    line = tiles([lengths])
    sources = [line[(member - turned) % group.size] for member in range(group.size)]
    places = [member - steps for member in range(group.size)]
    targets = [sources[place % group.size] if ring or 0 <= place < group.size else nothing(1) for place in places]
    return Fetch(Boxes("Shift", group, (dim,), sources, targets, few=True))


def halo(
    groups: Sequence[Group],
    dims: Sequence[int],
    lengths: Sequence[Sequence[int]],
    widths: Sequence[Sequence[tuple[int, int]]],
    zeros: bool = False,
) -> Operator:
    """Each part with the neighbours' edges around it, dim after dim, so that corners come right.

    groups   the ranks along the mesh axis of each dim
    dims     the dims of the tensor that are split
    lengths  of each dim, the members' block lengths
    widths   of each dim, every member's (left, right): how many indices more it wants on each side. They may differ, be 0, be longer than a
             neighbour's block, and be negative, which leaves indices out.
    zeros    whether a part that reaches beyond the tensor's ends has zeros there, as a
             convolution pads; else it ends where the tensor does

    The adjoint takes the dims in reverse: edges are sent back and added where they came from, and no longer held where they were.
    """
    return Chain([halo_dim(*one, zeros) for one in zip(groups, dims, lengths, widths, strict=True)])


def halo_dim(group: Group, dim: int, lengths: Sequence[int], widths: Sequence[tuple[int, int]], zeros: bool = False) -> Operator:
    """`halo` along one dim."""
    if len(lengths) != group.size or len(widths) != group.size:
        raise ModelError(f"Halo: {group.size} ranks need as many lengths and widths, got {len(lengths)} and {len(widths)}")
    end = sum(lengths)
    targets = []
    for first, length, (left, right) in zip(starts(lengths), lengths, widths, strict=True):
        begin, stop = first - left, first + length + right
        if not zeros:
            begin, stop = max(0, begin), min(end, stop)
        targets.append(Box((begin,), (stop - begin,)) if stop > begin else nothing(1))
    return Fetch(Boxes("Halo", group, (dim,), tiles([lengths]), targets, few=True))
