"""Greedy decoding in batches of prompts of equal length, so that no row is padded and each answer equals the one decoded alone."""

# B prompts of a batch, T tokens, V vocabulary.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from data_pipeline.errors import InputError

if TYPE_CHECKING:
    from eval.models import Model


@dataclass(frozen=True)
class Generation:
    """An answer: its text up to the end token or stop string, its ids, and whether it ended by itself."""

    text: str
    ids: tuple[int, ...]
    ended: bool


def generate_greedy(model: "Model", prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str]) -> list[Generation]:
    """Answers in the order of `prompts`, each at most `max_new_tokens` long. Equal prompts are computed once."""
    answers: dict[tuple[int, ...], Generation] = {}
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for prompt in dict.fromkeys(tuple(one) for one in prompts):
        if not prompt or len(prompt) + max_new_tokens - 1 > model.context:
            raise InputError(f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones do not fit the context of {model.context}")
        by_length.setdefault(len(prompt), []).append(prompt)
    for length, group in by_length.items():
        size = max(1, model.batch_tokens // (length + max_new_tokens))
        for start in range(0, len(group), size):
            batch = group[start : start + size]
            answers.update(zip(batch, generate_batch(model, batch, max_new_tokens, stop), strict=True))
    return [answers[tuple(one)] for one in prompts]


def generate_batch(model: "Model", prompts: list[tuple[int, ...]], max_new_tokens: int, stop: Sequence[str]) -> list[Generation]:
    """Greedy answers to prompts of equal length; ends when every row has ended."""
    ids: list[list[int]] = [[] for _ in prompts]
    done: list[Generation | None] = [None] * len(prompts)
    state, logits_BV = model.prefill(torch.tensor(prompts), max_new_tokens - 1)
    for count in range(1, max_new_tokens + 1):
        next_B = logits_BV.argmax(-1)
        for row, token in enumerate(next_B.tolist()):
            if done[row] is None:
                done[row] = after(model, ids[row], token, stop)
        if count == max_new_tokens or all(one is not None for one in done):
            break
        logits_BV = model.step(state, next_B)
    return [one or Generation(model.text.decode(ids[row]), tuple(ids[row]), False) for row, one in enumerate(done)]


def after(model: "Model", ids: list[int], token: int, stop: Sequence[str]) -> Generation | None:
    """Takes the token in; the finished answer where it ends there."""
    if token in model.text.stop_ids:
        return Generation(model.text.decode(ids), tuple(ids), True)
    ids.append(token)
    if stop:
        text = model.text.decode(ids)
        cut = min((text.index(mark) for mark in stop if mark in text), default=None)
        if cut is not None:
            return Generation(text[:cut], tuple(ids), True)
    return None
