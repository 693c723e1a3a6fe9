"""From logits to the next token, and from tokens to text that is safe to show."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from data_pipeline.errors import InputError

REPLACEMENT = "\ufffd"  # what a decoder puts where bytes are not a whole character yet


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen: the most likely at temperature 0, else drawn from the `top_k` likeliest (0: all) that make up `top_p`."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise InputError(f"temperature must be a number of 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise InputError(f"top_k must be 0 (all tokens) or more, got {self.top_k}")


def pick(logits_V: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """The next token."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    below = logits_V.astype(np.float64) - logits_V.max()
    order = np.argsort(-below, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to minus infinity, and the likeliest stays at 0
        weights = np.exp(below[order] / sampling.temperature)
    weights /= weights.sum()
    # The likeliest tokens until their sum reaches top_p, the one that crosses it included.
    kept = int(np.searchsorted(np.cumsum(weights), sampling.top_p)) + 1
    weights = weights[:kept] / weights[:kept].sum()
    return int(order[min(int(np.searchsorted(np.cumsum(weights), random.random(), side="right")), len(weights) - 1)])


def text_pieces(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Text as it becomes certain: a character whose bytes lie in several tokens appears once, whole. Joined, it is the decoded text.

    A piece is the difference of two decodings from a shared start, since some decoders treat the first token of a text differently.
    """
    ids: list[int] = []
    start = shown = 0
    for token in tokens:
        ids.append(token)
        before = tokenizer.decode(ids[start:shown], skip_special_tokens=True)
        now = tokenizer.decode(ids[start:], skip_special_tokens=True)
        if len(now) > len(before) and not now.endswith(REPLACEMENT):
            yield now[len(before) :]
            start, shown = shown, len(ids)
    rest = tokenizer.decode(ids[start:], skip_special_tokens=True)
    before = tokenizer.decode(ids[start:shown], skip_special_tokens=True)
    if len(rest) > len(before):
        yield rest[len(before) :]


def until_stop(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """The text before the first of the stop texts; what could be the beginning of one is held back until it is decided."""
    held = ""
    for piece in pieces:
        held += piece
        found = [place for place in (held.find(stop) for stop in stops) if place >= 0]
        if found:
            if min(found):
                yield held[: min(found)]
            return
        keep = max((length for stop in stops for length in range(1, len(stop)) if held.endswith(stop[:length])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
