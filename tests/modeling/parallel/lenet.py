"""LeNet-5 as DistDL's example has it, on one rank by torch alone and on 2 x 2 ranks by our layers, and digits to train it on."""

# B batch; h w this rank's rows and columns, c its channels, f its features; K the ten classes.

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.parallel.convolution import ParallelConv
from modeling.parallel.field import Field
from modeling.parallel.linear import ParallelLinear
from modeling.parallel.mesh import Mesh
from modeling.parallel.moves import repartition, scatter
from modeling.parallel.partition import grid_tiles
from modeling.parallel.pooling import ParallelMaxPool
from modeling.parallel.sums import Gather

TRAINED_ON, SIDE = 1437, 28


class LeNet(nn.Module):
    """torch's layers. A sigmoid before the softmax is what the example has, so it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x_B1HW: Tensor) -> Tensor:
        y = functional.max_pool2d(self.conv1(x_B1HW).relu(), 2)
        y = functional.max_pool2d(self.conv2(y).relu(), 2).flatten(1)
        return self.fc3(self.fc2(self.fc1(y).relu()).relu()).sigmoid()


class ParallelLeNet(nn.Module):
    """The same on a mesh of 2 rows and 2 columns.

    Rank 0 has the images, the others tensors without elements. Quarters of every image pass the convolutions; channels are then split over
    all four ranks, so that flattened each holds a quarter of the 400 features in their order. Linear layers lie on a 2 x 2 grid of weights,
    which alternates between outputs over columns and over rows, so that nothing moves between them. The result is shared.
    """

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        rows, columns, everyone = mesh.group("rows"), mesh.group("columns"), mesh.group("rows", "columns")
        double = torch.float64
        image = Field(mesh, (SIDE, SIDE), ("rows", "columns"))
        self.deal = scatter(everyone, grid_tiles(image.size, (2, 2)), dims=(2, 3))
        self.conv1 = ParallelConv(1, 6, 5, image, padding=2, dtype=double)
        self.pool1 = ParallelMaxPool(2, self.conv1.output)
        self.conv2 = ParallelConv(6, 16, 5, self.pool1.output, dtype=double)
        self.pool2 = ParallelMaxPool(2, self.conv2.output)
        quarters, channels = grid_tiles((16, 5, 5), (1, 2, 2)), grid_tiles((16, 5, 5), (4, 1, 1))
        self.to_channels = repartition(everyone, quarters, channels, (1, 2, 3))
        self.join = Gather(columns, 1, (100, 100))
        self.fc1 = ParallelLinear(400, 120, out_group=columns, in_group=rows, dtype=double)
        self.fc2 = ParallelLinear(120, 84, out_group=rows, in_group=columns, dtype=double)
        self.fc3 = ParallelLinear(84, 10, out_group=columns, in_group=rows, dtype=double)
        self.collect = Gather(columns, 1, (5, 5))

    def forward(self, x_B1HW: Tensor) -> Tensor:
        y_B1hw = self.deal(x_B1HW)
        y_BChw = self.pool1(self.conv1(y_B1hw).relu())
        y_BChw = self.pool2(self.conv2(y_BChw).relu())
        y_Bf = self.join(self.to_channels(y_BChw).flatten(1))
        y_Bk = self.fc3(self.fc2(self.fc1(y_Bf).relu()).relu())
        return self.collect(y_Bk).sigmoid()


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits, 8 x 8 with values 0 to 16, brought to 28 x 28 and 0 to 1, with their classes, shuffled once."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images_B1HW = functional.interpolate(torch.tensor(found.images)[:, None] / 16, (SIDE, SIDE), mode="bilinear")
    return images_B1HW[order], torch.tensor(found.target)[order]


def train(net: nn.Module, steps: int, root: bool) -> tuple[list[float], float]:
    """Losses of Adam's steps on random batches of 64, and the share of the held-out digits that are read right."""
    images_B1HW, classes_B = digits()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        chosen = torch.randint(0, TRAINED_ON, (64,), generator=torch.Generator().manual_seed(step))
        scores_BK = net(on_root(images_B1HW[chosen], root))
        loss = functional.cross_entropy(scores_BK, classes_B[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        read_B = net(on_root(images_B1HW[TRAINED_ON:], root)).argmax(1)
    return losses, (read_B == classes_B[TRAINED_ON:]).double().mean().item()


def on_root(x_B1HW: Tensor, root: bool) -> Tensor:
    """The images where they are read, nothing of them elsewhere."""
    return x_B1HW if root else x_B1HW[..., :0, :0]
