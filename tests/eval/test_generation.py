"""Batched greedy answers against answers one by one, and against transformers."""

import random
from pathlib import Path

import pytest
import torch

from data_pipeline.errors import InputError
from eval.models import Model, open_model


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return open_model(model_folder)


def prompts(count: int = 12) -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(11, 300) for _ in range(draw.choice((4, 7, 7, 11)))] for _ in range(count)]


def test_batched_equals_one_by_one(model: Model) -> None:
    together = model.generate(prompts(), 16)
    alone = [model.generate([one], 16)[0] for one in prompts()]
    assert together == alone
    assert len({one.ids for one in together}) > 1


def test_greedy_equals_transformers(model: Model, model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    for prompt, ours in zip(prompts(4), model.generate(prompts(4), 12), strict=True):
        ids = list(prompt)
        for token in ours.ids:
            with torch.no_grad():
                best = int(theirs(torch.tensor([ids])).logits[0, -1].argmax())
            assert token == best
            ids.append(token)


def test_it_ends_at_end_tokens_and_stop_strings(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = model.generate([prompts()[0]], 12)
    assert len(free.ids) == 12
    assert not free.ended
    end = free.ids[5]
    monkeypatch.setitem(model.text.__dict__, "stop_ids", frozenset({end}))
    (ended,) = model.generate([prompts()[0]], 12)
    assert ended.ids == free.ids[: free.ids.index(end)]
    assert ended.ended
    monkeypatch.undo()
    mark = free.text[3]
    (cut,) = model.generate([prompts()[0]], 12, (mark,))
    assert cut.text == free.text[: free.text.index(mark)]
    assert cut.ended


def test_a_prompt_that_leaves_no_room_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="do not fit the context of 256"):
        model.generate([[20] * 250], 8)
