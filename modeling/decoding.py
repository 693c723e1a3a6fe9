"""Continuing texts token by token: a cache, left padding, and a new start where longrope changes its factors."""

# B batch, T tokens, D width, V vocabulary.

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.kv_cache import KVCache
from modeling.rope import factors_of_length

# Tokens read at once: a long prompt's masks then take this many rows, not a row per token.
CHUNK = 1024


class Decoding:
    """Rows of equal length, padded on the left, that grow together: `feed` reads tokens and answers what may come next.

    `capacity` is the longest a row may become. Keys and values are those of the whole text at any time: where the text's length changes
    longrope's factors, all of it is read again (transformers and onnxruntime do the same). A `feed` that is broken off, by Ctrl-C say,
    leaves the text as it was before; what the cache has of it already is not read a second time.
    """

    def __init__(self, decoder: Decoder, batch_size: int, capacity: int, padding_B: Tensor | None = None) -> None:
        weight = decoder.embedding.weight
        self.decoder = decoder
        self.cache = KVCache(decoder.config, batch_size, capacity, dtype=weight.dtype, device=weight.device)
        self.ids_BT = torch.empty((batch_size, 0), dtype=torch.long, device=weight.device)
        self.padding_B = None if padding_B is None else padding_B.to(weight.device)
        self.least_padding = 0 if padding_B is None else int(padding_B.min())

    @property
    def length(self) -> int:
        """Tokens read so far, padding included."""
        return self.ids_BT.shape[1]

    @torch.no_grad()
    def feed(self, ids_BT: Tensor) -> Tensor:
        """Reads (B, T) more tokens; logits (B, V) after the last of them."""
        if ids_BT.ndim != 2 or ids_BT.shape[1] == 0:
            raise ModelError(f"ids must be (batch, tokens) with at least one token, got the shape {tuple(ids_BT.shape)}")
        batch_size, tokens = ids_BT.shape
        factors = self._factors(self.length + tokens)
        self._keep(self.length, factors)
        self.cache.check_room(batch_size, self.length - self.cache.length + tokens)
        self.cache.factors = factors
        text_BT = torch.cat((self.ids_BT, ids_BT.to(self.ids_BT.device)), dim=1)
        hidden_BTD = torch.empty(0)
        with evaluating(self.decoder):
            for chunk_BT in text_BT[:, self.cache.length :].split(CHUNK, dim=1):
                hidden_BTD = self.decoder.hidden_states(chunk_BT, cache=self.cache, padding_B=self.padding_B)
            logits_BV = self.decoder.logits(hidden_BTD[:, -1])
        self.ids_BT = text_BT  # not before: whoever compares a prompt with `ids_BT` takes them for read
        return logits_BV

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens; where keys of theirs are no longer here, the next `feed` reads them all again."""
        self.ids_BT = self.ids_BT[:, :length]
        self._keep(self.length, self._factors(self.length))

    def _keep(self, length: int, factors: str) -> None:
        """Leaves no keys in the cache but those of the first `length` tokens: none where they have other factors or are not whole."""
        if self.cache.factors not in (None, factors) or not self.cache.rewind(min(length, self.cache.length)):
            self.cache.reset()

    def _factors(self, length: int) -> str:
        """The longrope set of a text of `length` tokens, padding included."""
        chosen = self.decoder.rope_factors
        return factors_of_length(self.decoder.config, length - self.least_padding) if chosen == "auto" else chosen


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module without dropout inside the block, whatever mode its parts are in; the mode of each comes back afterwards."""
    in_training = [part for part in module.modules() if part.training]
    for part in in_training:
        part.training = False
    try:
        yield
    finally:
        for part in in_training:
            part.training = True


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor | None]:
    """Rows as one tensor (B, T), and how many tokens of padding each begins with, (B,); None where there is none."""
    if not rows or not all(rows):
        raise ModelError(f"prompts: every one of them needs at least one token, got lengths {[len(row) for row in rows][:8]}")
    longest = max(len(row) for row in rows)
    padding_B = torch.tensor([longest - len(row) for row in rows])
    ids_BT = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows])
    return ids_BT, padding_B if padding_B.any() else None


def likeliest(logits_BV: Tensor) -> Tensor:
    """Greedy choice, (B,)."""
    return logits_BV.argmax(-1)


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int] | Tensor],
    max_new_tokens: int,
    stop_ids: Collection[int] | None = None,
    choose: Callable[[Tensor], Tensor] = likeliest,
) -> list[list[int]]:
    """New token ids for each prompt of token ids, a list or a tensor (T,), all in one batch; the id that ends an answer is not given out.

    An answer ends at one of `stop_ids` (None: the configuration's `eos_ids`), after `max_new_tokens`, or when the longest row reaches
    `max_positions`. `choose` takes logits (B, V) to ids (B,). Rows are padded on the left, and padding changes no row's answer. No dropout
    acts, in training mode neither.
    """
    config = decoder.config
    if max_new_tokens < 1:
        raise ModelError(f"max_new_tokens must be 1 or more, got {max_new_tokens}")
    rows = token_rows(prompts, config.vocab_size)
    longest = max((len(row) for row in rows), default=0)
    if longest >= config.max_positions:
        raise ModelError(f"prompts: {longest} tokens leave no room for an answer in max_positions={config.max_positions}")
    stops = frozenset(config.eos_ids if stop_ids is None else stop_ids)
    answers: list[list[int]] = [[] for _ in rows]
    for group in batches_of_one_regime(decoder, [len(row) for row in rows], max_new_tokens):
        for row, answer in zip(group, generate_batch(decoder, [rows[row] for row in group], max_new_tokens, stops, choose), strict=True):
            answers[row] = answer
    return answers


def token_rows(prompts: Sequence[Sequence[int] | Tensor], vocab_size: int) -> list[list[int]]:
    """The prompts as lists of token ids of the vocabulary; anything else is refused."""
    rows = [row.tolist() if isinstance(row, Tensor) else row for row in prompts]
    if any(not isinstance(row, Iterable) for row in rows):
        raise ModelError("prompts: a list of them is needed, each a list of token ids; a single one goes into a list of its own")
    rows = [list(row) for row in rows]
    bad = [token for row in rows for token in row if not isinstance(token, Integral)]
    if bad:
        raise ModelError(f"prompts: token ids are whole numbers, got {bad[0]!r:.60}")
    bad = [token for row in rows for token in row if not 0 <= token < vocab_size]
    if bad:
        raise ModelError(f"prompts: token id {bad[0]} is not in the vocabulary of {vocab_size}")
    return rows


def batches_of_one_regime(decoder: Decoder, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """Rows that may share a batch: longrope goes by a batch's longest row, so a row that will cross the original length goes alone."""
    config = decoder.config
    if config.rope_scaling is None or decoder.rope_factors != "auto":
        return [list(range(len(lengths)))]
    groups: dict[str, list[int]] = {}
    for row, length in enumerate(lengths):
        first, last = factors_of_length(config, length), factors_of_length(config, length + max_new_tokens - 1)
        groups.setdefault(first if first == last else f"row {row} alone", []).append(row)
    return list(groups.values())


def generate_batch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Collection[int],
    choose: Callable[[Tensor], Tensor],
) -> list[list[int]]:
    """`generate` for one batch."""
    ids_BT, padding_B = pad_left(prompts, decoder.config.pad_id or 0)
    steps = min(max_new_tokens, decoder.config.max_positions - ids_BT.shape[1])
    decoding = Decoding(decoder, len(prompts), ids_BT.shape[1] + steps, padding_B)
    answers: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    chosen_B = choose(decoding.feed(ids_BT))
    for step in range(steps):
        for row, token in enumerate(chosen_B.tolist()):
            if row in going and token in stops:
                going.discard(row)
            elif row in going:
                answers[row].append(token)
        if not going or step + 1 == steps:
            break
        chosen_B = choose(decoding.feed(chosen_B[:, None]))
    return answers
