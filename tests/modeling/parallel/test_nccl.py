"""Operators over NCCL give the numbers that gloo gives. Needs two GPUs, and says so where they are missing."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from tests.modeling.parallel.operator_cases import CASES

COUNT = 2
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < COUNT, reason=f"not run here: needs {COUNT} CUDA devices"),
]


def compare(rank: int, meeting: str) -> None:
    """Every operator there and back, on the device over NCCL and on the CPU over gloo."""
    torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{meeting}", rank=rank, world_size=COUNT)
    for name, build in CASES.items():
        case = build(COUNT, 3)
        x = torch.randn(case.shape, dtype=case.dtype, generator=torch.Generator().manual_seed(rank))
        for there in (case.operator, case.operator.adjoint):
            y = there(x)
            torch.testing.assert_close(there(x.cuda()).cpu(), y, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
            x = y
    dist.destroy_process_group()


def test_nccl_gives_what_gloo_gives(tmp_path: Path) -> None:
    spawn(compare, (str(tmp_path / "meet"),), nprocs=COUNT)
