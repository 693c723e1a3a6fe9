"""The merge list of a BPE vocabulary that only ranks its entries.

SentencePiece and tiktoken store no pairs: they join whichever neighbours give the entry of best rank, the leftmost of equals.
`tokenizer.json` stores pairs. Where ranks differ, one pair per entry is enough, and it is exact: until an entry is formed over a stretch
of text, no join crosses the stretch's ends, so the joins inside it are those of the entry's own text, in the same order, whatever stands
around it. The last of them is the one pair that ever forms the entry.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from data_pipeline.errors import InputError

Text = TypeVar("Text", str, bytes)
NEVER = 1 << 62  # the rank of a pair that is not joined


def merge_pairs(ranks: Mapping[Text, int]) -> list[tuple[Text, Text]]:
    """The pairs in merge order. `ranks`: entry -> rank, all different, lower first; single characters or bytes need not be among them.

    An entry whose own text is never joined to two parts has no pair: neither library forms it by joining either.
    """

    def rank(left: Text, right: Text) -> int:
        return ranks.get(left + right, NEVER)

    pairs: list[tuple[Text, Text]] = []
    for entry in sorted(ranks, key=ranks.__getitem__):
        if len(entry) > 1:
            parts = greedy(entry, rank, stop=2)
            if len(parts) == 2:
                pairs.append((parts[0], parts[1]))
    return pairs


def greedy(text: Text, rank: Callable[[Text, Text], int], stop: int = 1) -> Sequence[Text]:
    """The text's characters joined pair by pair: best rank first, the leftmost of equals, until every rank is NEVER or `stop` are left."""
    parts = [text[at : at + 1] for at in range(len(text))]
    while len(parts) > stop:
        found = [rank(left, right) for left, right in pairwise(parts)]
        best = min(found)
        if best == NEVER:
            break
        at = found.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def run_pairs(runs: Collection[str], others: Collection[str], where: str) -> list[tuple[str, str]]:
    """The pairs, to stand after all others, of entries that share the last rank: Llama-2's runs of blanks all have the score -1e9.

    SentencePiece grows the leftmost run as far as it goes before it begins the next. Pairs have no equal ranks; longest first does the
    same, which is proved here on every run up to three times the longest entry. Entries of equal rank of any other kind are refused.
    """
    signs = {sign for run in runs for sign in run}
    sign = min(signs)
    if len(signs) > 1 or any(sign * 2 in other for other in others):
        shown = " and ".join(repr(run) for run in sorted(runs)[:2])
        raise InputError(f"{where}: pieces of equal score ({shown:.80}) must be runs of one character that no other piece holds")
    entries = {sign, *runs}
    longest = sorted(runs, key=len, reverse=True)
    pairs = [(run[:cut], run[cut:]) for run in longest for cut in range(len(run) - 1, 0, -1) if {run[:cut], run[cut:]} <= entries]
    order = {pair: number for number, pair in enumerate(pairs)}
    for length in range(2, 3 * len(longest[0]) + 1):
        wanted = greedy(sign * length, lambda left, right: 0 if left + right in entries else NEVER)
        if wanted != greedy(sign * length, lambda left, right: order.get((left, right), NEVER)):
            raise InputError(f"{where}: pieces of equal score (runs of {sign!r}) cannot be written as pairs of pieces")
    return pairs
