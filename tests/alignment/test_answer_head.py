"""Scoring answers only gives trl's own numbers and gradients."""

from pathlib import Path
from typing import Any

import torch

from alignment.answer_head import score_answers_only
from alignment.loop import load_model
from alignment.masking import IGNORED


def outputs_and_gradients(base: Path, ours: bool) -> tuple[Any, list[torch.Tensor]]:
    from trl.trainer.utils import add_fused_lm_head

    model = load_model(base, "sdpa")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    if ours:
        score_answers_only(model)
    ids = torch.arange(20, 52).view(2, 16)
    labels = ids.clone()
    labels[:, :9] = IGNORED
    labels[1, 14:] = IGNORED
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
    found.loss.backward()
    return found, [parameter.grad for parameter in model.parameters()]


def test_numbers_and_gradients_are_those_of_trl(base: Path) -> None:
    ours, our_gradients = outputs_and_gradients(base, ours=True)
    trls, trl_gradients = outputs_and_gradients(base, ours=False)
    for name in ("loss", "log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(getattr(ours, name), getattr(trls, name), atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.is_top1, trls.is_top1)
    assert torch.equal(ours.label_mask, trls.label_mask)
    for ours_, trls_ in zip(our_gradients, trl_gradients, strict=True):
        torch.testing.assert_close(ours_, trls_, atol=1e-6, rtol=1e-4)
