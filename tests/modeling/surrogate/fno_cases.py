"""Small Fourier neural operators of 2 to 4 dims over any ranks, their data, and losses counted once over the ranks."""

import torch
from torch import Tensor

from modeling.parallel.mesh import ALONE
from modeling.parallel.sums import SumReduce
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO
from tests.modeling.parallel.operator_cases import group_of

# name -> (modes, sizes): 2-D, 3-D, 3-D and time; odd, uneven, and with fewer points than ranks.
MODELS = {
    "2-D": ((4, 8), (6, 9)),
    "2-D, short": ((3, 8), (3, 8)),
    "3-D": ((4, 3, 4), (5, 7, 6)),
    "3-D and time": ((2, 4, 3, 4), (3, 4, 5, 7)),
}
BATCH, WIDTH = 3, 4


def model(name: str, count: int = 1, seed: int = 5) -> FNO:
    """float64; the same weights over any ranks."""
    modes, sizes = MODELS[name]
    config = FNOConfig(modes=modes, in_channels=2, out_channels=3, hidden_channels=WIDTH, num_layers=3, mlp_ratio=1.0)
    torch.manual_seed(seed)
    return FNO(config, sizes, ALONE if count == 1 else group_of(count), dtype=torch.float64)


def fields(name: str, channels: int, seed: int) -> Tensor:
    """Whole fields, (batch, channels, sizes)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, channels, *MODELS[name][1], dtype=torch.float64, generator=generator)


def mine(fno: FNO, whole: Tensor) -> Tensor:
    """This rank's part."""
    box = fno.plan.field_boxes[fno.group.index]
    return whole[(..., *(slice(first, stop) for first, stop in zip(box.start, box.stop, strict=True)))]


def squared_error(fno: FNO, y: Tensor, target: Tensor) -> Tensor:
    """The mean over samples of |y - target|^2 / |target|^2 over the whole fields: one shared number, counted once."""
    add = SumReduce(fno.group)
    sums = add(torch.stack([one.flatten(1).square().sum(-1) for one in (y - target, target)]))
    return (sums[0] / sums[1]).mean()
