"""Rows of the mixture as tensors: a rank's slice of the global batch, a pure function of the step."""

# B rows, T input tokens.

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture import IGNORED, Row
from training.recipe import rows_at_a_time


class RowSource(Protocol):
    """What a batch is read from; `data_pipeline.tokens.mixture.Mixture` is one."""

    def row(self, step: int, index: int) -> Row: ...


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass, each tensor (B, T) of int64. `targets_BT` is -100 where nothing is predicted."""

    ids_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor
    targets_BT: Tensor

    @property
    def num_targets(self) -> int:
        """How many tokens the loss counts."""
        return int((self.targets_BT != IGNORED).sum())

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on a device."""
        return MicroBatch(*(one.to(device) for one in (self.ids_BT, self.positions_BT, self.documents_BT, self.targets_BT)))


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of a step are dealt: `per_rank` consecutive rows to every rank, `micro` rows to a forward pass."""

    rows_per_step: int
    ranks: int
    per_rank: int
    micro: int

    @classmethod
    def deal(cls, rows_per_step: int, micro_rows: int, ranks: int) -> "BatchPlan":
        """Every rank gets equally many rows; a forward pass takes as many as fit under `micro_rows` and divide them."""
        if rows_per_step % ranks:
            raise InputError(
                f"[pretrain] rows_per_step = {rows_per_step} cannot be dealt to {ranks} ranks evenly; a multiple of {ranks} is needed"
            )
        per_rank = rows_per_step // ranks
        return cls(rows_per_step, ranks, per_rank, rows_at_a_time(per_rank, micro_rows))

    @property
    def accumulation(self) -> int:
        """Forward passes per step and rank."""
        return self.per_rank // self.micro


def read_batch(source: RowSource, plan: BatchPlan, step: int, rank: int = 0) -> list[MicroBatch]:
    """The micro-batches of `rank` at `step`."""
    first = rank * plan.per_rank
    rows = [source.row(step, index) for index in range(first, first + plan.per_rank)]
    return [stack(rows[start : start + plan.micro]) for start in range(0, plan.per_rank, plan.micro)]


def stack(rows: list[Row]) -> MicroBatch:
    """Rows of one length as tensors; the last id of a row is only a target."""
    return MicroBatch(
        torch.from_numpy(np.stack([row.ids[:-1] for row in rows]).astype(np.int64)),
        torch.from_numpy(np.stack([row.positions for row in rows]).astype(np.int64)),
        torch.from_numpy(np.stack([row.documents for row in rows]).astype(np.int64)),
        torch.from_numpy(np.stack([row.targets for row in rows]).astype(np.int64)),
    )
