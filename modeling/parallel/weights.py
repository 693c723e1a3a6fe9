"""Whole parameters into a module whose ranks hold parts of them, and back."""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.errors import ModelError
from modeling.parallel.mesh import Group
from modeling.parallel.partition import whole
from modeling.parallel.pieces import Pieces, parameter_pieces


@torch.no_grad()
def fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Puts this rank's part of every whole parameter in its place. They may come one at a time; none may be missing."""
    pieces, parameters = parameter_pieces(module), dict(module.named_parameters())
    missing = set(parameters)
    for name, full in tensors:
        if name not in parameters:
            raise ModelError(f"{name} is no parameter of this model")
        if tuple(full.shape) != pieces[name].shape:
            raise ModelError(f"{name} must have the shape {pieces[name].shape}, got {tuple(full.shape)}")
        parameters[name].copy_(pieces[name].take(full))
        missing.discard(name)
    if missing:
        raise ModelError(f"the weights lack {min(missing)}")


def collect(module: nn.Module, group: Group, values: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Each of this rank's tensors (parameters, gradients, moments, by parameter name) joined to the whole one, on every rank of the group.

    One at a time, in their order, which must be the same on all ranks.
    """
    pieces = parameter_pieces(module)
    for name, local in values:
        yield name, collect_one(pieces[name], local, group)


def collect_one(piece: Pieces, local: Tensor, group: Group) -> Tensor:
    """The whole tensor, from every rank's boxes of it."""
    if group.size == 1 or piece.shared:
        return local.detach()
    everyone: list[tuple[Pieces, Tensor] | None] = [None] * group.size
    dist.all_gather_object(everyone, (piece, local.detach().cpu()), group=group.process_group)
    full = local.new_empty(piece.shape)
    for one in everyone:
        assert one is not None
        its, values = one
        for box, part in its.lay(values):
            full[box.inside(whole(piece.shape))] = part.to(full.device)
    return full
