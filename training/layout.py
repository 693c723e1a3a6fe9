"""Where the ranks of a run stand: the mesh of a layout, and what DeepSpeed is told of it."""

from collections.abc import Mapping

import torch.distributed as dist
from torch import nn

from modeling.errors import ModelError
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.pieces import Pieces, parameter_pieces
from modeling.parallel.stream import Parallel
from training.recipe import LayoutRecipe

# Ranks that hold the same weights. Their gradients are summed; ZeRO divides states among them.
SAME_WEIGHTS = ("data", "context")


def build_parallel(layout: LayoutRecipe, ranks: int) -> Parallel:
    """The mesh data x context x tensor over all ranks, "tensor" counting fastest: its ranks talk most and are neighbours on a node."""
    mesh = Mesh({"data": layout.data_ranks(ranks), "context": layout.context, "tensor": layout.tensor} if ranks > 1 else {})
    return Parallel(mesh, sequence=layout.sequence, context=layout.context_way)


def mark_split_parameters(module: nn.Module) -> dict[str, Pieces]:
    """Marks what is split over "tensor" the way DeepSpeed reads it, and returns what this rank holds of every parameter.

    DeepSpeed counts a marked parameter's gradient on every tensor rank and an unmarked one's on the first alone. Without the mark its norm
    lacks the other ranks' shares, is too small, and nobody is told.
    """
    pieces = parameter_pieces(module)
    for name, parameter in module.named_parameters():
        if not pieces[name].shared:
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
    return pieces


class ModelParallelUnit:
    """The mesh as DeepSpeed asks for it: "model parallel" is the axis tensor, "data parallel" all ranks that hold the same weights."""

    def __init__(self, mesh: Mesh) -> None:
        self.tensor = mesh.group("tensor")
        self.same = mesh.group(*SAME_WEIGHTS)
        self.groups: Mapping[str, dist.ProcessGroup] = {
            "tensor": process_group(mesh, self.tensor, "tensor"),
            "same": process_group(mesh, self.same, *SAME_WEIGHTS),
        }

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self.groups["tensor"]

    def get_model_parallel_rank(self) -> int:
        return self.tensor.index

    def get_model_parallel_world_size(self) -> int:
        return self.tensor.size

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_rank = get_model_parallel_rank
    get_tensor_model_parallel_world_size = get_model_parallel_world_size

    def get_tensor_model_parallel_src_rank(self) -> int:
        return self.tensor.ranks[0]

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self.groups["same"]

    def get_data_parallel_rank(self) -> int:
        return self.same.index

    def get_data_parallel_world_size(self) -> int:
        return self.same.size

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(self.same.ranks)


def process_group(mesh: Mesh, group: Group, *axes: str) -> dist.ProcessGroup:
    """The group as torch has it. Ours has none for one rank, which has nobody to talk to; DeepSpeed wants one all the same."""
    if group.process_group is not None:
        return group.process_group
    if mesh.size(*axes) != 1:
        raise ModelError(f"the ranks along {axes} have no process group")
    found = None
    for rank in range(dist.get_world_size()):  # every rank takes part in making every group, in one order
        made = dist.new_group([rank])
        found = made if rank == mesh.rank else found
    assert isinstance(found, dist.ProcessGroup)
    return found
