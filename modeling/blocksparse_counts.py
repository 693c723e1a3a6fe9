"""What blocksparse attention on the CPU computes, call by call, and how many pairs of query and key that is. Imports no torch.

`modeling.backends.blocksparse` runs exactly the calls that are listed here, so its counted work is the work that is done.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from modeling.config import BlockSparse

# Queries of one call. Below 192 torch's kernel works in steps of 32 queries and is slower; more of them meet more keys in vain.
CHUNK_TOKENS = 256
# torch's CPU kernel takes keys in steps of this many, and under causality computes whole steps.
KERNEL_KEYS = 512


@dataclass(frozen=True)
class Chunk:
    """Neighbouring queries of one document that are computed together, as positions in the document.

    first, end    queries [first, end)
    local_first   the call with a mask takes keys [local_first, end)
    before        blocks below this one are not local to any query of the chunk: of those the vertical ones are seen by all its queries
    phase         (number of the first block) % vertical_stride: with the head's offset it decides the mask
    """

    first: int
    end: int
    local_first: int
    before: int
    phase: int


def causal_tokens(length: int, sparse: BlockSparse) -> int:
    """The first tokens of a document, whose attention is plainly causal: every earlier block is local."""
    return min(length, sparse.local_blocks * sparse.block)


def chunks(length: int, sparse: BlockSparse) -> Iterator[Chunk]:
    """The queries after the first `causal_tokens`."""
    step = min(max(1, CHUNK_TOKENS // sparse.block), sparse.local_blocks)
    for block in range(sparse.local_blocks, -(-length // sparse.block), step):
        before = block - sparse.local_blocks + 1
        end = min(length, (block + step) * sparse.block)
        yield Chunk(block * sparse.block, end, before * sparse.block, before, block % sparse.vertical_stride)


def vertical_blocks(before: int, offset: int, sparse: BlockSparse) -> range:
    """The vertical blocks of a head's offset among the first `before` blocks."""
    return range(-offset % sparse.vertical_stride, before, sparse.vertical_stride)


def offsets(sparse: BlockSparse, num_heads: int) -> dict[int, list[int]]:
    """The heads of each offset: those that see the same blocks."""
    heads: dict[int, list[int]] = {}
    for head in range(num_heads):
        heads.setdefault(sparse.head_offset(head, num_heads), []).append(head)
    return heads


def needed_pairs(length: int, sparse: BlockSparse, num_heads: int) -> int:
    """Pairs that the pattern shows in one document, over all heads: what its dense mask sums to."""
    total = 0
    for offset, heads in offsets(sparse, num_heads).items():
        for block in range(-(-length // sparse.block)):
            rows = min(sparse.block, length - block * sparse.block)
            local = min(block, sparse.local_blocks - 1)
            vertical = len(vertical_blocks(block - local, offset, sparse))
            total += len(heads) * (rows * (local + vertical) * sparse.block + rows * (rows + 1) // 2)
    return total


def computed_pairs(length: int, sparse: BlockSparse, num_heads: int) -> int:
    """Pairs whose scores the operator computes for one document, masked ones included, over all heads."""
    total = num_heads * kernel_causal_pairs(causal_tokens(length, sparse))
    for chunk in chunks(length, sparse):
        for offset, heads in offsets(sparse, num_heads).items():
            keys = chunk.end - chunk.local_first + len(vertical_blocks(chunk.before, offset, sparse)) * sparse.block
            total += len(heads) * (chunk.end - chunk.first) * keys
    return total


def dense_pairs(length: int) -> int:
    """Pairs of one causal head: T(T+1)/2."""
    return length * (length + 1) // 2


def kernel_causal_pairs(length: int) -> int:
    """Pairs whose scores torch's CPU kernel computes for one causal head (its steps: 32, 64 or 256 queries by length, 512 keys)."""
    step = 256 if length >= 768 else 64 if length >= 192 else 32
    total = 0
    for first in range(0, length, step):
        rows = min(step, length - first)
        keys = -(-(first + rows) // KERNEL_KEYS) * KERNEL_KEYS
        total += rows * min(keys, length)
    return total
