"""Linear layers over a grid of ranks against torch's: outputs, gradients of inputs, weights and biases."""

import pytest
import torch
from torch import nn

from modeling.errors import ModelError
from modeling.parallel.linear import ParallelLinear
from modeling.parallel.mesh import ALONE
from tests.modeling.parallel.field_cases import RANKS, agree, block, mesh_of, random
from tests.ranks import Ranks

# (ranks over outputs, ranks over inputs)
WEIGHT_GRIDS = {1: [(1, 1)], 2: [(2, 1), (1, 2)], 3: [(3, 1), (1, 3)], 4: [(4, 1), (1, 4), (2, 2)]}
# (inputs, outputs): uneven, fewer than ranks, one
FEATURES = [(7, 5), (8, 4), (2, 3), (3, 1), (1, 2)]


def layer(grid: tuple[int, int], ins: int, outs: int, bias: bool = True) -> ParallelLinear:
    mesh = mesh_of((("out", grid[0]), ("in", grid[1])))
    return ParallelLinear(ins, outs, mesh.group("out"), mesh.group("in"), bias, torch.float64)


def agrees(grid: tuple[int, int], ins: int, outs: int, bias: bool, shape: tuple[int, ...] = (4,)) -> None:
    mesh = mesh_of((("out", grid[0]), ("in", grid[1])))
    many, one = layer(grid, ins, outs, bias), nn.Linear(ins, outs, bias).double()
    agree(many, one, random(*shape, ins), lambda x: block(x, -1, mesh.group("in")), lambda y: block(y, -1, mesh.group("out")))


@pytest.mark.parametrize("count", RANKS)
def test_every_weight_grid(ranks: Ranks, count: int) -> None:
    for grid in WEIGHT_GRIDS[count]:
        for ins, outs in FEATURES:
            ranks(count, agrees, grid, ins, outs, ins != 8, (4,) if ins == 8 else (2, 3))


def two_layers() -> None:
    """Outputs of one are inputs of the next with the axes swapped, so that nothing moves between them."""
    mesh = mesh_of((("rows", 2), ("columns", 2)))
    rows, columns = mesh.group("rows"), mesh.group("columns")
    many = nn.Sequential(
        ParallelLinear(7, 5, columns, rows, dtype=torch.float64), nn.Tanh(), ParallelLinear(5, 3, rows, columns, dtype=torch.float64)
    )
    one = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    agree(many, one, random(4, 7), lambda x: block(x, -1, rows), lambda y: block(y, -1, rows))


def test_two_layers_with_swapped_axes(ranks: Ranks) -> None:
    ranks(4, two_layers)


class BiasBeforeTheSum(ParallelLinear):
    """The bias counts once per rank of the inputs."""

    def forward(self, x_i: torch.Tensor) -> torch.Tensor:
        return self.leave(nn.functional.linear(self.enter(x_i), self.weight, self.bias))


class ForgetsTheBroadcast(ParallelLinear):
    """Each rank keeps what its own outputs say of the inputs."""

    def forward(self, x_i: torch.Tensor) -> torch.Tensor:
        return self.leave(nn.functional.linear(x_i, self.weight)) + self.get_parameter("bias")


class SumsCopies(ParallelLinear):
    """The sum's gradient is summed again, as for a sum that every rank counts."""

    def forward(self, x_i: torch.Tensor) -> torch.Tensor:
        from modeling.parallel.sums import AllSumReduce

        return AllSumReduce(self.leave.domain.group)(nn.functional.linear(self.enter(x_i), self.weight)) + self.get_parameter("bias")


def noticed(kind: type[ParallelLinear], said: str) -> None:
    mesh = mesh_of((("out", 2), ("in", 2)))
    many = kind(7, 5, mesh.group("out"), mesh.group("in"), dtype=torch.float64)
    one = nn.Linear(7, 5).double()
    with pytest.raises(AssertionError, match=said):
        agree(many, one, random(4, 7), lambda x: block(x, -1, mesh.group("in")), lambda y: block(y, -1, mesh.group("out")))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (BiasBeforeTheSum, "output differs"),
        (ForgetsTheBroadcast, "input gradient differs"),
        (SumsCopies, "input gradient differs"),
    ],
)
def test_faults_are_noticed(ranks: Ranks, kind: type[ParallelLinear], said: str) -> None:
    ranks(4, noticed, kind, said)


def test_on_one_rank_it_is_torch_s_layer() -> None:
    ours, theirs = ParallelLinear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(ours(x), theirs(x))


def test_no_features_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 1 feature"):
        ParallelLinear(0, 3, ALONE, ALONE)
