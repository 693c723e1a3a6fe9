"""The GPU benchmark's script, on the CPU with a tiny model: its record, its refusals, its master copies."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Phi3ForCausalLM, modeling_flash_attention_utils

from benchmarks import gpu
from benchmarks.step import gpu_sides
from benchmarks.step.agreement import Disagreement, check_isolation
from benchmarks.step.gpu_models import model_config, peak_flops, start_rows
from benchmarks.step.gpu_sides import Trainer, Way, is_out_of_memory
from benchmarks.step.gpu_trial import Trial, document_lengths
from benchmarks.step.rows import Batch, make_batch, rows_from
from benchmarks.step.sides import Side, their_config, their_loss
from data_pipeline.errors import InputError
from modeling.backends.packed import packed_attention
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
        assert one["checks"]["leak"] == 0
        flops = one["flops_per_token"]
        assert flops["full"] > flops["causal"] > flops["causal_own_documents"]


def test_a_way_that_fails_is_recorded_and_fails_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main([*TINY, "--attention", "varlen", "--sides", "phial", "--out", str(out)]) == 1
    assert "needs a CUDA device" in json.loads(out.read_text())["results"][0]["error"]
    assert "Traceback" in capsys.readouterr().err


SETTINGS = {"context": 64, "rows": 2, "accumulate": 2, "steps": 1, "mean": 16}


def trial(side: str, **settings: int) -> Trial:
    way = Way(side, "sdpa", compile=False)
    return Trial(model_config("tiny"), way, torch.device("cpu"), SETTINGS | settings, until=0.0)


def test_ways_read_the_same_rows_however_many_at_a_time() -> None:
    two, three = trial("phial"), trial("phial", accumulate=1)
    assert torch.equal(
        torch.cat([batch.ids_BT for number in range(3) for batch in two.batches(2, number)]),
        torch.cat([batch.ids_BT for number in range(4) for batch in three.batches(3, number)]),
    )


def test_a_way_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trial("phial").run()
    assert set(ours["checks"]) == {"loss", "gradient_norm", "precision", "leak"}
    theirs = trial("transformers", rows=3).run(reference=ours)
    assert theirs["checks"]["loss"] == pytest.approx(ours["checks"]["loss"], rel=2e-3)
    monkeypatch.setattr(gpu_sides, "their_loss", lambda model, attention: lambda batch: 1.01 * their_loss(model, attention)(batch))
    with pytest.raises(Disagreement, match="transformers, sdpa, recompute none has"):
        trial("transformers").run(reference=ours)


def test_a_rehearsal_leaves_no_trace() -> None:
    tried, fresh = (Trainer(model_config("tiny"), Way("phial", "sdpa", compile=False), torch.device("cpu")) for _ in range(2))
    batches = trial("phial").batches(2, 0)
    tried.rehearse(batches)
    assert all(one.grad is None for one in tried.parameters)
    for one in (tried, fresh):
        one.step(batches)
    assert all(torch.equal(a, b) for a, b in zip(tried.masters.masters, fresh.masters.masters, strict=True))
    assert all(int(state["step"]) == 1 for state in tried.optimizer.state.values())


def test_a_step_that_does_not_fit_is_tried_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Trainer, batches: list[Batch]) -> torch.Tensor:
        if batches and batches[0].ids_BT.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole_step(self, batches)

    whole_step = Trainer.step
    monkeypatch.setattr(Trainer, "step", step)
    assert trial("phial", rows=0).run()["micro_rows"] == 1
    with pytest.raises(InputError, match="2 rows of 64 tokens do not fit; use --micro-rows or --recompute full"):
        trial("phial", rows=2).run()


def varlen_on_the_cpu(q_LNH: Tensor, k_LKH: Tensor, v_LKH: Tensor, cu_seqlens_q: Tensor, **settings: Any) -> Tensor:
    """flash-attn's function over documents laid end to end."""
    rows = [x_LNH.transpose(0, 1)[None] for x_LNH in (q_LNH, k_LKH, v_LKH)]
    return packed_attention(rows[0], rows[1], rows[2], cu_seqlens_q, 0, settings["softmax_scale"])[0].transpose(0, 1)


def rows_on_the_cpu(q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, **settings: Any) -> Tensor:
    """flash-attn's function over whole rows."""
    parts = [x_BTNH.transpose(1, 2) for x_BTNH in (q_BTNH, k_BTKH, v_BTKH)]
    y_BNTH = functional.scaled_dot_product_attention(*parts, is_causal=True, scale=settings["softmax_scale"], enable_gqa=True)
    return y_BNTH.transpose(1, 2)


@pytest.mark.parametrize("told", [True, False], ids=["bounds", "positions alone"])
def test_their_flash_attention_is_told_of_documents(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own code, with the two functions of flash-attn that need a GPU replaced."""
    config = dataclasses.replace(model_config("tiny"), window_keys=None)
    kernels = (rows_on_the_cpu, varlen_on_the_cpu, None, None, None)
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda *_: (kernels, (dict, dict)))
    model = Phi3ForCausalLM(their_config(config, "sdpa")).train()
    batch = rows_from("packed", 0, 3, 64, config.vocab_size, 16)
    wanted = their_loss(model)(batch).item()
    model.config._attn_implementation = "flash_attention_2"
    side = Side("transformers", list(model.parameters()), {"flash": their_loss(model, "flash_attention_2" if told else "sdpa")})
    if told:
        assert check_isolation(side, "flash", batch, bfloat16=False) == 0
        assert side.ways["flash"](batch).item() == pytest.approx(wanted, rel=1e-6)
    else:
        with pytest.raises(Disagreement, match="changes the loss on later ones"):
            check_isolation(side, "flash", batch, bfloat16=False)


def test_the_trainer_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole loop up to its first checkpoint: its own metrics, the plan's bytes, losses that the loop has had."""
    out = tmp_path / "trainer.json"
    assert gpu.main([*TINY, "--trainer", "--steps", "3", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {"machine", "commit", "date", "device", "settings"} <= set(record)
    assert record["tokens_per_step"] == 2 * 2 * 64
    assert len(record["tokens_per_s"]) == len(record["losses"]) == 3
    assert record["losses"][0] == pytest.approx(math.log(320), rel=0.05)
    assert {"data", "step"} <= set(record["seconds_by_part"])
    assert record["planned_bytes"]["total"] > 0
    assert (record["peak_bytes"], record["planned_over_peak"], record["planned_tokens_per_s"]) == (None, None, None)  # a CPU has no counter
    assert gpu.main(["--trainer", "--model", "1b", "--device", "cpu"]) == 2
    assert "--trainer --model 1b: a recipe names presets; phi3-mini-4k" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="not run here: there is a CUDA device, so nothing is refused")
def test_no_cuda_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--model", "phi3-mini-4k"]) == 2
    assert capsys.readouterr().err == "gpu benchmark: no CUDA device here; --model tiny --device cpu proves the script without one\n"


def test_sizes_and_peaks() -> None:
    assert 0.9e9 < count_parameters(model_config("1b")) < 1.2e9
    assert 6.5e9 < count_parameters(model_config("7b")) < 7.5e9
    assert peak_flops("NVIDIA H200") == 989.5e12
    assert peak_flops("Some Other Card") is None
    mini = model_config("phi3-mini-4k")
    parameters = count_parameters(mini)
    left = 150_000_000_000 - 14 * parameters
    rows = [start_rows(mini, 4096, left, parameters, kind, all_logits=False) for kind in ("none", "selective", "full")]
    assert 2 <= rows[0] < rows[1] < rows[2]
    assert start_rows(mini, 4096, left, parameters, "full", all_logits=True) < rows[2]


def test_only_out_of_memory_is_tried_again_with_fewer_rows() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_document_lengths_add_up() -> None:
    batch = make_batch("packed", 3, 200, 50, 0, mean=20)
    lengths = document_lengths(batch)
    assert sum(lengths) == 600
    assert len(lengths) == int((batch.positions_BT == 0).sum())
