"""The rows that both step benchmarks train on: synthetic documents, seeded, packed or padded.

Lengths are log-normal, ids follow Zipf's law; nothing is read from disk. A batch is a pure function of its case, its shape and its number.
"""

# B rows, T tokens of a row.

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
MEAN_TOKENS, SIGMA = 400, 1.0
TENSORS = ("ids_BT", "positions_BT", "documents_BT", "targets_BT")
CASES = {
    "packed": "documents packed into the row, each kept apart from the others",
    "padded": "one document a row, padded on the right to the row's end",
    "unpacked": "one document fills the row",
}


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, where each token stands in its document, which document that is, and what follows it (-100: nothing counted)."""

    ids_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor
    targets_BT: Tensor
    real_tokens: int  # all but padding
    kind: str

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})


def make_batch(kind: str, rows: int, row_tokens: int, vocab_size: int, number: int, mean: int = MEAN_TOKENS) -> Batch:
    """Batch `number` of a case of `CASES`; the same arguments give the same batch."""
    chance = np.random.default_rng([number, rows, row_tokens, sorted(CASES).index(kind)])
    lengths = [row_lengths(kind, row_tokens, mean, chance) for _ in range(rows)]
    ids_BT = zipf_ids(chance, (rows, row_tokens + 1), vocab_size)
    documents_BT = np.stack([np.repeat(np.arange(len(one)), one) for one in lengths])
    positions_BT = np.stack([np.concatenate([np.arange(length) for length in one]) for one in lengths])
    last_BT = np.ones_like(documents_BT, dtype=bool)
    last_BT[:, :-1] = documents_BT[:, 1:] != documents_BT[:, :-1]
    if kind == "unpacked":
        last_BT[:, -1] = False  # the text goes on behind the row
    padding_BT = documents_BT > 0 if kind == "padded" else np.zeros_like(last_BT)
    targets_BT = np.where(last_BT | padding_BT, IGNORED, ids_BT[:, 1:])
    tensors = [torch.from_numpy(np.ascontiguousarray(one)) for one in (ids_BT[:, :-1], positions_BT, documents_BT, targets_BT)]
    return Batch(*tensors, real_tokens=int((~padding_BT).sum()), kind=kind)


def rows_from(kind: str, first: int, rows: int, row_tokens: int, vocab_size: int, mean: int = MEAN_TOKENS) -> Batch:
    """Rows `first`, `first + 1`, ... of a case's endless sequence: each is a function of its place, however many are taken at a time."""
    made = [make_batch(kind, 1, row_tokens, vocab_size, place, mean) for place in range(first, first + rows)]
    joined = {name: torch.cat([getattr(one, name) for one in made]) for name in TENSORS}
    return Batch(**joined, real_tokens=sum(one.real_tokens for one in made), kind=kind)


def row_lengths(kind: str, row_tokens: int, mean: int, chance: np.random.Generator) -> list[int]:
    """The lengths of a row's documents, which add up to `row_tokens`; of a padded row the second is the padding.

    Log-normal of the given mean: mu = ln(mean) - sigma^2 / 2. A document that does not end within the row is cut there.
    """
    if kind == "unpacked":
        return [row_tokens]
    lengths: list[int] = []
    while (left := row_tokens - sum(lengths)) > 0:
        length = max(2, round(chance.lognormal(math.log(mean) - SIGMA**2 / 2, SIGMA)))
        lengths.append(min(length, left))
        if kind == "padded" and length < left:
            lengths.append(left - length)
    return lengths


def zipf_ids(chance: np.random.Generator, shape: tuple[int, int], vocab_size: int) -> np.ndarray:
    """Ids whose frequency falls as 1 / (rank + 2.7), the Zipf-Mandelbrot law; the rank of an id is the id."""
    weights = 1.0 / (np.arange(vocab_size) + 2.7)
    edges = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(edges, chance.random(shape)), vocab_size - 1).astype(np.int64)


def keys_seen(batch: Batch) -> float:
    """Keys that a query attends to, itself included, as a mean over the batch: what packing with isolation leaves to do."""
    return float((batch.positions_BT + 1).double().mean())


def describe(row_tokens: int, mean: int = MEAN_TOKENS) -> str:
    return f"rows of {row_tokens} tokens; document lengths log-normal, mean {mean}, sigma {SIGMA}, seeded; ids by Zipf's law"
