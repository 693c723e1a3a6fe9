"""Operators over NCCL give the numbers that gloo gives. Needs two GPUs, and says so where they are missing."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from modeling.parallel.gradients import sum_gradients
from tests.modeling.parallel.decoder_cases import decoder_over, rows, whole_decoder
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
        drawn = torch.randn(case.shape, dtype=case.dtype, generator=torch.Generator().manual_seed(rank))
        narrow = [] if case.transform or case.dtype.is_complex else [(drawn.bfloat16(), 1e-2)]
        for x, bound in [(drawn, 1e-12), *narrow]:
            for there in (case.operator, case.operator.adjoint):
                y, on_device = there(x), x.cuda()
                for way, found in (("called", there(on_device)), ("started", there.start(on_device).finish())):
                    what = f"{name}, {x.dtype}, {way}"
                    torch.testing.assert_close(found.cpu(), y, rtol=bound, atol=bound, msg=lambda text, what=what: f"{what}: {text}")
                x = y
    for axis, way in (("tensor", "ulysses"), ("context", "ulysses"), ("context", "ring"), ("context", "halo")):
        compare_decoder(axis, way)
    dist.destroy_process_group()


def compare_decoder(axis: str, way: str) -> None:
    """Loss and the norm of this rank's gradients of a whole decoder, on the devices against one rank on the CPU."""
    ids_BT, targets_BT, _ = rows(3, False)
    one = whole_decoder("window")
    many = decoder_over("window", ((axis, COUNT),), False, way).cuda()  # type: ignore[arg-type]
    theirs = one.loss(ids_BT, targets_BT)
    ours = many.loss(ids_BT.cuda(), targets_BT.cuda())
    torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-9, atol=0)
    theirs.backward()
    ours.backward()
    sum_gradients(many.parameters(), many.parallel.context_group)
    assert one.norm.weight.grad is not None
    assert many.norm.weight.grad is not None
    torch.testing.assert_close(many.norm.weight.grad.cpu(), one.norm.weight.grad, rtol=1e-9, atol=1e-12)


def test_nccl_gives_what_gloo_gives(tmp_path: Path) -> None:
    spawn(compare, (str(tmp_path / "meet"),), nprocs=COUNT)
