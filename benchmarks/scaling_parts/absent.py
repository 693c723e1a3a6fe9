"""One rank that runs for real beside ranks that do not exist: torch's fake process group, which answers no message.

Shapes, memory, operations and bytes are those of the rank in its world; what it receives is whatever stood in its memory, so that its
values mean nothing. Kind of every figure from here: simulated.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def beside_absent_ranks(rank: int, world: int) -> Iterator[None]:
    """Inside the `with` block this process is that rank of so many."""
    # torch's own for tests, and the only group that needs no other process.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
