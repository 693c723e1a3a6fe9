"""The vocabulary split over ranks: embedding and head hold rows of it, and the loss needs full logits on no rank."""

# B batch, T tokens, C tokens of a chunk, D width, V vocabulary, v this rank's part of it.

import torch
from torch import Tensor, nn

from modeling.parallel.heads import block_ranges
from modeling.parallel.local import Select
from modeling.parallel.mesh import ALONE, Group
from modeling.parallel.moves import all_gather
from modeling.parallel.partition import balanced
from modeling.parallel.pieces import rows
from modeling.parallel.split_linear import PartLinear
from modeling.parallel.stream import Stream
from modeling.parallel.sums import Gather, SumReduce


def vocabulary_range(group: Group, vocab_size: int) -> range:
    """The entries whose rows this rank holds."""
    return block_ranges(balanced(vocab_size, group.size))[group.index]


class VocabularyEmbedding(nn.Embedding):
    """Each rank looks up its own entries, zeros for others; the shares add up as the stream is entered."""

    def __init__(self, vocab_size: int, width: int, group: Group) -> None:
        self.mine = vocabulary_range(group, vocab_size)
        super().__init__(len(self.mine), width)
        self.alone = group.size == 1
        self.num_ids = vocab_size
        self.pieces = {"weight": rows((vocab_size, width), [self.mine])}

    def forward(self, ids_BT: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        if self.alone:
            return super().forward(ids_BT)
        refuse_outside(ids_BT, self.num_ids, "a token id")
        inside_BT = (ids_BT >= self.mine.start) & (ids_BT < self.mine.stop)
        rows_BT = torch.where(inside_BT, ids_BT - self.mine.start, -1)
        return stream.leave(Select(rows_BT, len(self.mine))(self.weight))


class VocabularyHead(PartLinear):
    """The rows of the head that score this rank's entries."""

    def __init__(self, vocab_size: int, width: int, group: Group) -> None:
        self.mine = vocabulary_range(group, vocab_size)
        super().__init__(width, len(self.mine), bias=False)
        self.pieces = {"weight": rows((vocab_size, width), [self.mine])}


class VocabularyShare:
    """What scores of a part of the vocabulary need of the other parts: numbers per token, never logits."""

    def __init__(self, group: Group = ALONE, vocab_size: int = 0) -> None:
        self.alone = group.size == 1
        self.vocab_size = vocab_size
        self.mine = vocabulary_range(group, vocab_size)
        self.sum = SumReduce(group)
        self.collect = all_gather(group, 0, (1,) * group.size)
        self.gather = Gather(group, -1, balanced(vocab_size, group.size))

    def here(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Those of some entries that are this rank's, counted from its first."""
        return ids if self.alone else tuple(one - self.mine.start for one in ids if one in self.mine)

    def hits(self, targets_C1: Tensor) -> Tensor:
        """Which of this rank's columns is each token's target, (C, v): at most one, on one rank. Ids outside the vocabulary are refused."""
        refuse_outside(targets_C1, self.vocab_size, "a target")
        return torch.arange(self.mine.start, self.mine.stop, device=targets_C1.device) == targets_C1

    def log_sum(self, log_sum_C1: Tensor) -> Tensor:
        """log sum exp over the vocabulary from each rank's own, without gradient: the loss writes its gradient out."""
        return self.collect.launch(log_sum_C1[None])().logsumexp(0)

    def total(self, share_C1: Tensor) -> Tensor:
        """The sum of the ranks' numbers, without gradient."""
        return self.sum.launch(share_C1)()


def refuse_outside(ids: Tensor, vocab_size: int, what: str) -> None:
    """Raises where an id is no entry; on a GPU without waiting for it."""
    inside = ((ids >= 0) & (ids < vocab_size)).all()
    torch._assert_async(inside, f"{what} is outside the vocabulary of {vocab_size}")  # pyright: ignore[reportPrivateImportUsage]


WHOLE_VOCABULARY = VocabularyShare()
