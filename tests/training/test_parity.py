"""The trainer against a plain loop of transformers' Phi3 and torch's unfused AdamW; and documents that must not leak."""

# B rows, T tokens, V vocabulary.

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import Phi3ForCausalLM

from data_pipeline.tokens.mixture import Mixture
from data_pipeline.tokens.shards import TokenShards
from modeling import save_decoder
from modeling.decoder import Decoder
from modeling.initialise import initialise
from training.batches import BatchPlan, MicroBatch, read_batch
from training.job import Job, make_plan
from training.metrics import read_metrics
from training.recipe import ModelRecipe, PretrainRecipe
from training.trainer import pretrain

PHASES = [{"name": "one", "steps": 10, "weights": {"web": 1.0, "synthetic": 1.0}}]
RECIPE = PretrainRecipe(
    phases=PHASES,  # type: ignore[arg-type]
    context=32,
    rows_per_step=8,
    micro_rows=4,
    learning_rate=3e-3,
    warmup_steps=3,
    min_ratio=0.1,
    clip=0.5,
    precision="float32",
    log_every=1,
    threads=1,
)
MODEL = ModelRecipe(preset="tiny", window_keys=0)


def reference_run(corpus: Path, folder: Path, forget_clip: bool = False) -> tuple[list[float], list[float], Phi3ForCausalLM]:
    """Ten steps of a plain loop that shares only the rows and the initial weights with the trainer."""
    job = Job(recipe=RECIPE, model=MODEL, seed=5, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=folder)
    config = make_plan(job).config
    save_decoder(initialise(Decoder(config), torch.Generator().manual_seed(5)), folder / "start")
    model = Phi3ForCausalLM.from_pretrained(folder / "start", dtype=torch.float32, attn_implementation="eager").train()
    decayed = [one for name, one in model.named_parameters() if "norm" not in name and "embed" not in name]
    others = [one for name, one in model.named_parameters() if "norm" in name or "embed" in name]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.95))
    shards = {source: TokenShards.open(corpus / "tokens" / source) for source in ("web", "synthetic")}
    mixture = Mixture(list(RECIPE.phases), shards, 32, 8, 5)
    losses, norms = [], []
    for step in range(10):
        rows = [mixture.row(step, index) for index in range(8)]
        ids_BT = torch.tensor([row.ids[:-1].tolist() for row in rows])
        documents_BT = torch.tensor([row.documents.tolist() for row in rows])
        seen_BTT = (documents_BT[:, :, None] == documents_BT[:, None, :]) & torch.ones(32, 32, dtype=torch.bool).tril()
        mask_B1TT = torch.zeros(8, 1, 32, 32).masked_fill(~seen_BTT[:, None], torch.finfo(torch.float32).min)
        positions_BT = torch.tensor([row.positions.tolist() for row in rows])
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_B1TT, position_ids=positions_BT, use_cache=False).logits
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), torch.tensor([row.targets.tolist() for row in rows]).flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf if forget_clip else 0.5)))
        for group in optimizer.param_groups:
            share = (step + 1) / 3 if step < 3 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 3) / 6))
            group["lr"] = 3e-3 * share
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, model


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def test_losses_norms_and_weights_equal_a_plain_loop(corpus: Path, tmp_path: Path):
    result = pretrain(RECIPE, MODEL, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=tmp_path / "run", seed=5)
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    losses, norms, model = reference_run(corpus, tmp_path)
    assert largest_difference([row["loss"] for row in rows], losses) < 5e-6
    assert max(abs(row["grad_norm"] / norm - 1) for row, norm in zip(rows, norms, strict=True)) < 2e-5
    trained = Phi3ForCausalLM.from_pretrained(result["model"], dtype=torch.float32)
    for (name, ours), theirs in zip(trained.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert losses[-1] < losses[0] - 0.1
    # The comparison can fail: without clipping, which is active here, the loops part.
    wrong, _, _ = reference_run(corpus, tmp_path / "wrong", forget_clip=True)
    assert largest_difference([row["loss"] for row in rows], wrong) > 1e-4
    # The folder is whole: the tokenizer's files and a config that says where generation ends.
    assert (Path(result["model"]) / "tokenizer.json").exists()
    assert result["tokens"] == 10 * 8 * 32
    assert rows[-1]["tokens"] == result["tokens"]


def document_loss(decoder: Decoder, micro: MicroBatch, document: int) -> float:
    """The loss over one document's targets only."""
    only = dataclasses.replace(micro, targets_BT=torch.where(micro.documents_BT == document, micro.targets_BT, -100))
    with torch.no_grad():
        return float(decoder.loss(only.ids_BT, only.targets_BT, positions_BT=only.positions_BT, documents_BT=only.documents_BT))


def test_packed_documents_do_not_leak_through_the_batch_path(corpus: Path, tmp_path: Path):
    job = Job(recipe=RECIPE, model=MODEL, seed=5, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=tmp_path)
    plan = make_plan(job)
    decoder = initialise(Decoder(plan.config), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(5)  # attention that matters
    batches = [micro for step in range(10) for micro in read_batch(plan.mixture, BatchPlan.deal(8, 1, 1), step)]
    packed = [micro for micro in batches if ((micro.documents_BT == 1) & (micro.targets_BT != -100)).sum() > 4]
    assert packed, "no row holds two documents"
    micro = packed[0]
    changed_BT = torch.where(micro.documents_BT == 0, (micro.ids_BT + 17) % plan.config.vocab_size, micro.ids_BT)
    changed = dataclasses.replace(micro, ids_BT=changed_BT)
    assert document_loss(decoder, micro, 1) == document_loss(decoder, changed, 1)
    assert document_loss(decoder, micro, 0) != document_loss(decoder, changed, 0)

    # The check can fail: attention that is told of one document only does leak.
    def forgotten(micro: MicroBatch) -> float:
        targets_BT = torch.where(micro.documents_BT == 1, micro.targets_BT, -100)
        with torch.no_grad():
            return float(decoder.loss(micro.ids_BT, targets_BT, positions_BT=micro.positions_BT))

    assert forgotten(micro) != forgotten(changed)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(corpus: Path, tmp_path: Path, monkeypatch):
    from data_pipeline.errors import InputError
    from training.engine import StepResult
    from training.replicated import ReplicatedEngine

    true_step = ReplicatedEngine.step
    calls = []

    def poisoned(self, batch, rate, accept=None):
        calls.append(rate)
        result = true_step(self, batch, rate, accept)
        return StepResult(result.loss * math.nan, result.grad_norm) if len(calls) == 7 else result

    monkeypatch.setattr(ReplicatedEngine, "step", poisoned)
    recipe = RECIPE.model_copy(update={"checkpoint_every": 3, "log_every": 4})
    with pytest.raises(InputError, match="step 7: the loss is nan"):
        pretrain(recipe, MODEL, tokens=corpus / "tokens", tokenizer=corpus / "tokenizer", out=tmp_path, seed=5)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000006"]
    assert not (tmp_path / "model").exists()
