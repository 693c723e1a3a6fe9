"""Log-probabilities of continuations. A context is read once, and its keys and values serve all of its continuations."""

# B contexts of a batch, T tokens, V vocabulary, R continuations of a batch, W wanted positions.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from data_pipeline.errors import InputError

if TYPE_CHECKING:
    from eval.models import Model

# Context ids and continuation ids, each at least one.
Request = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Score:
    """Of one continuation: its log-probability (natural logarithm, summed over its tokens) and whether greedy decoding would write it."""

    log_probability: float
    greedy_match: bool
    num_tokens: int


def score_requests(model: "Model", requests: Sequence[Request]) -> list[Score]:
    """Scores in the order of `requests`. Equal requests are computed once."""
    wanted: dict[tuple[int, ...], dict[tuple[int, ...], Score | None]] = {}
    keys = [(tuple(context), tuple(continuation)) for context, continuation in requests]
    for context, continuation in keys:
        check_request(model, context, continuation)
        wanted.setdefault(context, {})[continuation] = None
    for contexts in context_batches(model, wanted):
        for (context, continuation), score in score_batch(model, contexts, [tuple(wanted[one]) for one in contexts]):
            wanted[context][continuation] = score
    found = [wanted[context][continuation] for context, continuation in keys]
    assert all(score is not None for score in found)
    return found  # type: ignore[return-value]


def check_request(model: "Model", context: Sequence[int], continuation: Sequence[int]) -> None:
    if not context or not continuation:
        raise InputError(f"a context and a continuation need at least one token each, got {len(context)} and {len(continuation)}")
    if len(context) + len(continuation) - 1 > model.context:
        raise InputError(f"{len(context)} + {len(continuation)} - 1 tokens do not fit the model's context of {model.context}")


def context_batches(model: "Model", wanted: dict[tuple[int, ...], Any]) -> Iterator[list[tuple[int, ...]]]:
    """Contexts of equal length together, longest first, as many as the model's token budget takes.

    Equal lengths need no padding before the continuations, so no mask can go wrong. A context whose keys would change within a longer text
    (longrope) goes with texts of its own regime: one continuation at a time, as a context of its own.
    """
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for context in wanted:
        by_length.setdefault(len(context), []).append(context)
    for length in sorted(by_length, reverse=True):
        size = max(1, model.batch_tokens // length)
        for start in range(0, len(by_length[length]), size):
            yield by_length[length][start : start + size]


def score_batch(
    model: "Model", contexts: list[tuple[int, ...]], continuations: list[tuple[tuple[int, ...], ...]]
) -> Iterator[tuple[tuple[tuple[int, ...], tuple[int, ...]], Score]]:
    """Scores of all continuations of contexts of equal length."""
    length = len(contexts[0])
    alone: list[tuple[int, tuple[int, ...]]] = []
    rest: list[tuple[int, tuple[int, ...]]] = []
    for row, options in enumerate(continuations):
        for one in options:
            (rest if model.alike(length, length + len(one) - 1) else alone).append((row, one))
    if rest:
        room = max(len(one) for _, one in rest) - 1
        state, logits_BV = model.prefill(torch.tensor(contexts), room)
        first_BV = torch.log_softmax(logits_BV, -1)
        pieces = [(row, one, *pick(first_BV[row], one[0])) for row, one in rest]
        yield from add_later_tokens(model, state, contexts, pieces)
    for row, one in alone:
        yield (contexts[row], one), score_whole(model, contexts[row], one)


def add_later_tokens(
    model: "Model", state: Any, contexts: list[tuple[int, ...]], pieces: list[tuple[int, tuple[int, ...], float, bool]]
) -> Iterator[tuple[tuple[tuple[int, ...], tuple[int, ...]], Score]]:
    """Adds to the first token's log-probability those of the tokens after it; longest continuations first, batched by tokens."""
    pieces = sorted(pieces, key=lambda piece: -len(piece[1]))
    start = 0
    while start < len(pieces):
        width = len(pieces[start][1]) - 1
        # The keys of the context are copied for every row, so they count too.
        size = max(1, model.batch_tokens // (width + len(contexts[0]) // 8)) if width else len(pieces)
        batch = pieces[start : start + size]
        start += size
        sums, greedy = [piece[2] for piece in batch], [piece[3] for piece in batch]
        if width:
            later, matches = later_tokens(model, state, [(row, one) for row, one, _, _ in batch])
            sums = [first + more for first, more in zip(sums, later, strict=True)]
            greedy = [both and more for both, more in zip(greedy, matches, strict=True)]
        for (row, one, _, _), log_probability, match in zip(batch, sums, greedy, strict=True):
            yield (contexts[row], one), Score(log_probability, match, len(one))


def later_tokens(model: "Model", state: Any, rows: list[tuple[int, tuple[int, ...]]]) -> tuple[list[float], list[bool]]:
    """Per row: the summed log-probability of all tokens after the first, and whether each was the most probable one."""
    width = max(len(one) for _, one in rows) - 1
    ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
    targets_RT = torch.zeros(len(rows), width, dtype=torch.long)
    wanted_RT = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, (_, one) in enumerate(rows):
        count = len(one) - 1
        ids_RT[number, :count] = torch.tensor(one[:-1])
        targets_RT[number, :count] = torch.tensor(one[1:])
        wanted_RT[number, :count] = True
    logits_WV = model.extend(state, torch.tensor([row for row, _ in rows]), ids_RT, wanted_RT)
    return sum_by_row(logits_WV, targets_RT, wanted_RT)


def sum_by_row(logits_WV: Tensor, targets_RT: Tensor, wanted_RT: Tensor) -> tuple[list[float], list[bool]]:
    """Per row of `wanted_RT`: the targets' summed log-probability (in double precision) and whether all are arg-max."""
    targets_W = targets_RT[wanted_RT]
    chosen_W = logits_WV.gather(1, targets_W[:, None])[:, 0]
    log_probability_W = (chosen_W - logits_WV.logsumexp(-1)).double()
    greedy_W = logits_WV.argmax(-1) == targets_W
    row_W = wanted_RT.nonzero()[:, 0]
    sums_R = torch.zeros(len(wanted_RT), dtype=torch.double).index_add_(0, row_W, log_probability_W)
    misses_R = torch.zeros(len(wanted_RT), dtype=torch.long).index_add_(0, row_W, (~greedy_W).long())
    return sums_R.tolist(), (misses_R == 0).tolist()


def score_whole(model: "Model", context: tuple[int, ...], continuation: tuple[int, ...]) -> Score:
    """One request in a single pass over all of its tokens, so that its length alone decides its longrope regime."""
    whole = torch.tensor([[*context, *continuation[:-1]]])
    logits_TV = model.whole(whole)[0, len(context) - 1 :]
    wanted_RT = torch.ones(1, len(continuation), dtype=torch.bool)
    sums, greedy = sum_by_row(logits_TV, torch.tensor([continuation]), wanted_RT)
    return Score(sums[0], greedy[0], len(continuation))


def pick(log_probability_V: Tensor, token: int) -> tuple[float, bool]:
    """The token's log-probability and whether it is the most probable one."""
    return float(log_probability_V[token]), int(log_probability_V.argmax()) == token
