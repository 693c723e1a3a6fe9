"""Packed rows stay apart: several conversations in one row, told apart by their positions alone.

transformers keeps packed documents apart by finding where the positions start again at 0, but only where no attention mask is given. An
all-ones mask switches that off without a word, and every conversation then reads those before it. So a packed batch with a mask is refused.
A key/value cache switches it off as well; `answer_head` and trl never ask for one.
"""

from typing import Any

from data_pipeline.errors import InputError


def refuse_leak(batch: dict[str, Any], num_documents: int) -> dict[str, Any]:
    """The batch itself, when its documents are kept apart; InputError when they would read each other."""
    if batch.get("attention_mask") is not None:
        raise InputError(
            "a packed batch carries an attention_mask; with one, transformers lets packed rows read each other: send positions only"
        )
    if batch.get("position_ids") is None:
        raise InputError("a packed batch carries no position_ids; they alone keep packed rows apart")
    starts = int((batch["position_ids"] == 0).sum())
    if starts != num_documents:
        raise InputError(f"a packed batch of {num_documents} conversations has {starts} starting positions; each needs its own")
    return batch


class PackedCollator:
    """trl's collator for packed rows, its every batch checked."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return refuse_leak(self.collate(examples), sum(len(example["seq_lengths"]) for example in examples))
