"""Log-probabilities against transformers, one request at a time, without cache, batch or shared context."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data_pipeline.errors import InputError
from eval.models import open_model
from eval.scoring import Request, Score
from modeling.config import LongRope

LONG_ROPE = LongRope(short_factors=(1.0,) * 8, long_factors=(2.0, 3.0, 4.0, 5.0) * 2)


def requests(seed: int, vocab: int, longest: int) -> list[Request]:
    """Contexts of many lengths with several continuations each, some contexts twice, one continuation that is a prefix of another."""
    draw = random.Random(seed)
    found: list[Request] = []
    for _ in range(12):
        context = [draw.randrange(11, vocab) for _ in range(draw.randint(1, longest))]
        whole = [draw.randrange(11, vocab) for _ in range(draw.randint(2, 9))]
        found += [(context, whole), (context, whole[:1]), (context, [draw.randrange(11, vocab)]), (context[:-1] or context, whole[::-1])]
    draw.shuffle(found)
    return found


def reference(folder: Path, asked: list[Request], shift: int = 0) -> list[Score]:
    """Each request alone through transformers; `shift` reads the scores at a wrong place, to show that the comparison notices."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    for context, continuation in asked:
        with torch.no_grad():
            logits_TV = model(torch.tensor([[*context, *continuation]])).logits[0]
        log_probabilities_TV = torch.log_softmax(logits_TV.double(), -1)
        places = range(len(context) - 1 + shift, len(context) + len(continuation) - 1 + shift)
        values = [float(log_probabilities_TV[place, token]) for place, token in zip(places, continuation, strict=True)]
        greedy = all(int(logits_TV[place].argmax()) == token for place, token in zip(places, continuation, strict=True))
        scores.append(Score(sum(values), greedy, len(continuation)))
    return scores


def largest_difference(ours: list[Score], theirs: list[Score]) -> float:
    return max(abs(one.log_probability - other.log_probability) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({}, 60),
        ({"num_kv_heads": 4, "tied": True}, 30),
        ({"window_keys": 12}, 60),
        # Contexts on both sides of the length at which longrope changes its factors.
        ({"max_positions": 64, "original_max_positions": 32, "rope_scaling": LONG_ROPE}, 50),
    ],
    ids=["grouped", "tied", "window", "longrope"],
)
def test_scores_equal_transformers(make_model: Callable[..., Path], settings: dict, longest: int) -> None:
    folder = make_model(**settings)
    model = open_model(folder)
    model.batch_tokens = 150  # several batches, and batches of several contexts
    asked = requests(3, model.text.tokenizer.get_vocab_size(), longest)
    ours, theirs = model.score(asked), reference(folder, asked)
    assert largest_difference(ours, theirs) < 1e-5
    assert [one.greedy_match for one in ours] == [one.greedy_match for one in theirs]
    assert [one.num_tokens for one in ours] == [len(continuation) for _, continuation in asked]


def test_a_shifted_continuation_is_noticed(model_folder: Path) -> None:
    model = open_model(model_folder)
    asked = [one for one in requests(3, model.text.tokenizer.get_vocab_size(), 40) if len(one[0]) > 1]
    assert largest_difference(model.score(asked), reference(model_folder, asked, shift=-1)) > 1e-2


def test_greedy_continuations_are_marked(model_folder: Path) -> None:
    model = open_model(model_folder)
    (answer,) = model.generate([[20, 30, 40]], 4)
    (score, other) = model.score([([20, 30, 40], answer.ids), ([20, 30, 40], [*answer.ids[:-1], 11])])
    assert score.greedy_match
    assert not other.greedy_match


def test_what_does_not_fit_is_refused(model_folder: Path) -> None:
    model = open_model(model_folder)
    assert model.score([([20] * 250, [21] * 7)])  # 256 tokens go in, the last one is only predicted
    with pytest.raises(InputError, match="do not fit the model's context of 256"):
        model.score([([20] * 250, [21] * 8)])
    with pytest.raises(InputError, match="at least one token each"):
        model.score([([], [21])])
