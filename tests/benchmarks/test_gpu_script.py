"""The GPU benchmark's script, on the CPU with a tiny model: its record, its refusals, its master copies."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import gpu
from benchmarks.step import master
from benchmarks.step.gpu_models import model_config, peak_flops, start_rows
from benchmarks.step.gpu_sides import is_out_of_memory
from benchmarks.step.gpu_trial import document_lengths
from benchmarks.step.master import MasterAdamW
from benchmarks.step.rows import make_batch
from modeling.counts import count_parameters

TINY = ["--model", "tiny", "--device", "cpu", "--no-compile", "--steps", "2", "--accumulate", "2", "--micro-rows", "2"]


def test_tiny_model_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main([*TINY, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {"machine", "commit", "date", "device"} <= set(record)
    assert [one["way"].split(",")[0] for one in record["results"]] == ["phial", "transformers"]
    for one in record["results"]:
        assert one["tokens_per_step"] == 2 * 2 * 64
        assert len(one["step_s"]) == 2
        assert one["tokens_per_s"] > 0
        assert one["mfu"] == {"causal": None, "full": None, "causal_own_documents": None}  # no peak is made up for a CPU
        flops = one["flops_per_token"]
        assert flops["full"] > flops["causal"] > flops["causal_own_documents"]


def test_a_way_that_fails_is_recorded_and_fails_the_call(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main([*TINY, "--attention", "varlen", "--sides", "phial", "--out", str(out)]) == 1
    assert "needs a CUDA device" in json.loads(out.read_text())["results"][0]["error"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="not run here: there is a CUDA device, so nothing is refused")
def test_no_cuda_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--model", "phi3-mini-4k"]) == 2
    assert capsys.readouterr().err == "gpu benchmark: no CUDA device here; --model tiny --device cpu proves the script without one\n"


def test_master_copies_follow_adamw_in_float32_and_bfloat16_alone_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "BUCKET", 40)  # several buckets
    settings = {"lr": 5e-4, "weight_decay": 0.1}
    start = [torch.randn(5, 7).bfloat16(), torch.randn(9).bfloat16()]
    low, high, bare = (
        [nn.Parameter(one.to(dtype, copy=True)) for one in start] for dtype in (torch.bfloat16, torch.float32, torch.bfloat16)
    )
    ours, reference, naive = MasterAdamW(low, settings), torch.optim.AdamW(high, **settings), torch.optim.AdamW(bare, **settings)
    assert len(ours.buckets) == 2
    for _ in range(20):
        for a, b, c in zip(low, high, bare, strict=True):
            a.grad = torch.rand_like(a)  # one sign, so that small updates add up
            b.grad, c.grad = a.grad.float(), a.grad.clone()
        ours.step()
        reference.step()
        naive.step()
    assert all(one.grad is None for one in low)
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(low, high, strict=True))
    assert not all(torch.equal(c, b.bfloat16()) for c, b in zip(bare, high, strict=True))


def test_sizes_and_peaks() -> None:
    assert 0.9e9 < count_parameters(model_config("1b")) < 1.2e9
    assert 6.5e9 < count_parameters(model_config("7b")) < 7.5e9
    assert peak_flops("NVIDIA H200") == 989.5e12
    assert peak_flops("Some Other Card") is None
    mini = model_config("phi3-mini-4k")
    rows = [start_rows(mini, 4096, 150_000_000_000, count_parameters(mini), kind) for kind in ("none", "selective", "full")]
    assert 2 <= rows[0] < rows[1] < rows[2]


def test_only_out_of_memory_is_tried_again_with_fewer_rows() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_document_lengths_add_up() -> None:
    batch = make_batch("packed", 3, 200, 50, 0, mean=20)
    lengths = document_lengths(batch)
    assert sum(lengths) == 600
    assert len(lengths) == int((batch.positions_BT == 0).sum())
