"""The rows of one source in the order in which they are read: epoch by epoch, block by block.

A block is a run of whole shards of up to `BLOCK_TOKENS` tokens. Every epoch visits the blocks in an order of its own and packs each anew
(`packing.py`), when its first row is asked for: so a run over trillions of tokens begins at once and holds the packing of two blocks. A
source of one block is one packing per epoch.

How many rows a visit has is known once it was packed; a run that goes on hands in the numbers that it has met, and packs none again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.tokens.packing import IntArray, Packing, pack, shuffled
from data_pipeline.tokens.shards import TokenShards

BLOCK_TOKENS = 2**26  # 64k documents of 1,000 tokens: packed in well under a second


class SourceOrder:
    """The rows of `shards` in reading order. `row_counts` are those of the first visits, where they are known already."""

    def __init__(
        self, shards: TokenShards, context: int, key: str, row_counts: Sequence[int] = (), block_tokens: int = BLOCK_TOKENS
    ) -> None:
        self.shards = shards
        self.context = context
        self.key = key
        self.blocks = blocks_of([shard["tokens"] for shard in shards.shards], block_tokens)
        self.row_counts = list(row_counts)  # of visit 0, 1, ...
        self._ends = np.cumsum(self.row_counts).tolist()
        self._visit_order = lru_cache(maxsize=2)(self._order_of_epoch)
        self.packing = lru_cache(maxsize=2)(self._pack_visit)

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def _order_of_epoch(self, epoch: int) -> IntArray:
        return shuffled(self.num_blocks, f"{self.key}/{epoch}/blocks")

    def block(self, visit: int) -> int:
        """Which block the visit reads."""
        epoch, place = divmod(visit, self.num_blocks)
        return int(self._visit_order(epoch)[place])

    def _pack_visit(self, visit: int) -> Packing:
        block = self.block(visit)
        first, stop = self.blocks[block]
        key = f"{self.key}/{visit // self.num_blocks}" + (f"/{block}" if self.num_blocks > 1 else "")
        packing = pack(self.shards.ends(first, stop), self.context, key, int(self.shards.bounds[first]))
        if packing.num_rows == 0:
            where = "" if self.num_blocks == 1 else f" in shards {first} to {stop - 1}"
            raise InputError(f"{self.shards.folder}: no document of two tokens or more{where}, so nothing to predict")
        return packing

    def _know(self, visits: int) -> None:
        """Packs until the row counts of the first `visits` visits are known."""
        while len(self.row_counts) < visits:
            self.row_counts.append(self.packing(len(self.row_counts)).num_rows)
            self._ends.append(self.row_counts[-1] + (self._ends[-1] if self._ends else 0))

    def visit_of(self, row: int) -> tuple[int, int]:
        """The visit in which the source's row `row` lies, and its number there."""
        while not self._ends or self._ends[-1] <= row:
            self._know(len(self.row_counts) + 1)
        visit = bisect_right(self._ends, row)
        return visit, row - (self._ends[visit - 1] if visit else 0)

    def locate(self, row: int) -> tuple[int, int]:
        """The epoch of the source's row `row`, and its number in that epoch."""
        epoch = self.visit_of(row)[0] // self.num_blocks
        return epoch, row - (self._ends[epoch * self.num_blocks - 1] if epoch else 0)

    def pieces(self, row: int) -> tuple[IntArray, IntArray]:
        """Starts and lengths in the long row of ids of what row `row` of the source holds."""
        visit, number = self.visit_of(row)
        return self.packing(visit).pieces(number)

    def epochs_at(self, row: int, limit: float = float("inf")) -> float:
        """How often the source was read after `row` rows.

        Of a source of one block exactly, up to `limit` epochs; beyond, and where there are several blocks, as its first ones are filled.
        """
        if self.num_blocks > 1:
            self._know(1)
            return row * self._tokens(0) / self.row_counts[0] / self.shards.num_tokens
        while (not self._ends or self._ends[-1] < row) and len(self.row_counts) < limit:
            self._know(len(self.row_counts) + 1)
        visit = bisect_right(self._ends, row - 1)
        if visit < len(self._ends):
            return visit + (row - self._ends[visit] + self.row_counts[visit]) / self.row_counts[visit]
        return row * visit / self._ends[-1]

    def targets_at(self, row: int) -> int:
        """How many targets the first `row` rows hold: of one block exactly, of several as the first one is filled."""
        if self.num_blocks > 1:
            return round(row * self._targets(0) / self.row_counts[0])
        if row == 0:
            return 0
        visit, number = self.visit_of(row - 1)
        return visit * self._targets(0) + int(self.packing(visit).targets_until[number + 1])

    def fill(self) -> float:
        """The share of a row's T inputs that predict something: of one block over the epochs met, of several in the first one."""
        visits = len(self.row_counts) if self.num_blocks == 1 else 1
        return visits * self._targets(0) / (sum(self.row_counts[:visits]) * self.context)

    def _tokens(self, visit: int) -> int:
        first, stop = self.blocks[self.block(visit)]
        return int(self.shards.bounds[stop] - self.shards.bounds[first])

    def _targets(self, visit: int) -> int:
        """Every token but the first of each document is a target once."""
        first, stop = self.blocks[self.block(visit)]
        return self._tokens(visit) - sum(shard["documents"] for shard in self.shards.shards[first:stop])


def blocks_of(shard_tokens: Sequence[int], block_tokens: int) -> list[tuple[int, int]]:
    """First and exclusive last shard of each block: as many consecutive shards as hold `block_tokens`, at least one."""
    blocks, first, held = [], 0, 0
    for number, tokens in enumerate(shard_tokens):
        if number > first and held + tokens > block_tokens:
            blocks.append((first, number))
            first, held = number, 0
        held += tokens
    return [*blocks, (first, len(shard_tokens))]
