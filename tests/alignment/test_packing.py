"""Packed conversations do not read each other, and the check that guards it fires."""

from pathlib import Path

import pytest
import torch

from alignment.loop import load_model
from alignment.packing import PackedCollator, refuse_leak
from data_pipeline.errors import InputError

FIRST = list(range(20, 40))
SECOND = list(range(60, 75))


def packed_batch(mask: bool = False) -> dict[str, torch.Tensor]:
    batch = {
        "input_ids": torch.tensor([FIRST + SECOND]),
        "position_ids": torch.tensor([[*range(len(FIRST)), *range(len(SECOND))]]),
    }
    return batch | ({"attention_mask": torch.ones_like(batch["input_ids"])} if mask else {})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_isolation_and_the_leak_that_a_mask_makes(base: Path, attention: str) -> None:
    model = load_model(base, attention).eval()
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([SECOND])).logits[0]
        packed = model(**packed_batch(), use_cache=False).logits[0, len(FIRST) :]
        masked = model(**packed_batch(mask=True), use_cache=False).logits[0, len(FIRST) :]
        cached = model(**packed_batch(), use_cache=True).logits[0, len(FIRST) :]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    assert (masked - alone).abs().max() > 1e-3  # the fault that the check is there for
    assert (cached - alone).abs().max() > 1e-3  # and why training never asks for a cache


def test_the_check_fires() -> None:
    assert refuse_leak(packed_batch(), 2)["position_ids"] is not None
    with pytest.raises(InputError, match="carries an attention_mask"):
        refuse_leak(packed_batch(mask=True), 2)
    with pytest.raises(InputError, match="no position_ids"):
        refuse_leak({"input_ids": torch.tensor([FIRST])}, 1)
    with pytest.raises(InputError, match="2 conversations has 1 starting positions"):
        refuse_leak(packed_batch() | {"position_ids": torch.arange(35)[None]}, 2)


def test_the_collator_is_checked() -> None:
    examples = [{"seq_lengths": [20, 15]}]
    assert "attention_mask" not in PackedCollator(lambda _: packed_batch())(examples)
    with pytest.raises(InputError, match="carries an attention_mask"):
        PackedCollator(lambda _: packed_batch(mask=True))(examples)
