"""The order of the training data: every row is a pure function of (recipe, seed, step, index), whatever the number of ranks.

Phases follow each other; inside a phase each row comes from one source, in proportions that hold at every moment and exactly at its end.
A source is read in an order of its own (`source_order.py`), and goes on in the next phase where it stood.

T context, the input tokens of a row; a row carries T + 1 ids so that the last input token has its target too.
"""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from data_pipeline.engine.journal import fingerprint
from data_pipeline.errors import InputError
from data_pipeline.recipe import Section
from data_pipeline.tokens.packing import IntArray
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.tokens.source_order import SourceOrder

IGNORED = -100  # the target of a position that predicts nothing, as in torch's cross_entropy


class PhaseRecipe(Section):
    """One phase of the mixture."""

    name: str = Field(min_length=1, description="for logs and reports")
    steps: int = Field(ge=1, description="optimizer steps")
    weights: dict[str, float] = Field(min_length=1, description="share of rows per source; they are divided by their sum")
    max_epochs: float = Field(
        default=4.0, gt=0, description="how often a source may have been read when the phase ends, over all phases so far"
    )

    @field_validator("weights")
    @classmethod
    def some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= weight < float("inf") for weight in weights.values()) or sum(weights.values()) <= 0:
            raise ValueError("weights must be 0 or more, and at least one above 0")
        return weights


@dataclass(frozen=True)
class Row:
    """One packed row. No position may attend to one of another document."""

    ids: IntArray  # (T + 1,)
    positions: IntArray  # (T,) restart at 0 with each document
    documents: IntArray  # (T,) 0, 1, ... in the row's order; free slots at the end count as one more
    targets: IntArray  # (T,) the next id of the same document, else IGNORED
    source: str


@dataclass(frozen=True)
class Start:
    """Where a mixture takes over from another: at `step`, by when `rows` of each source have been read."""

    step: int = 0
    rows: dict[str, int] = field(default_factory=dict)


class Mixture:
    """The rows of all phases. `row(step, index)` counts steps over all phases and rows within a step.

    One that takes over at `start` has the rows from that step on only: shares and the order of sources are those of its phases at that
    step, and every source goes on where it was left. `orders` are those of its sources where they are at hand already.
    """

    def __init__(
        self,
        phases: list[PhaseRecipe],
        shards: dict[str, TokenShards],
        context: int,
        rows_per_step: int,
        seed: int,
        start: Start = Start(),
        orders: dict[str, SourceOrder] | None = None,
    ) -> None:
        check_sources(phases, shards)
        self.phases = phases
        self.shards = shards
        self.context = context
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.num_steps = sum(phase.steps for phase in phases)
        self._sources = sorted({source for phase in phases for source, weight in phase.weights.items() if weight > 0})
        self._step_ends = list(accumulate(phase.steps for phase in phases))
        # rows of each source per phase, and how many were read before the phase
        self._quotas = [quotas(phase.weights, phase.steps * rows_per_step) for phase in phases]
        self._before = [
            {source: sum(quota.get(source, 0) for quota in self._quotas[:n]) for source in self._sources} for n in range(len(phases))
        ]
        self.start = start
        # added to a source's count: what was read by then beside what these phases alone would have read
        self._shift = {source: start.rows.get(source, 0) - rows for source, rows in self._own_rows(start.step).items()}
        orders = orders or {}
        self.orders = {source: orders.get(source) or SourceOrder(shards[source], context, f"{seed}/{source}") for source in self._sources}
        for source in self._sources:
            self._check_epochs(source)

    def _check_epochs(self, source: str) -> None:
        """Refuses a phase that would read the source too often."""
        for number, phase in enumerate(self.phases):
            wanted = self._before[number][source] + self._quotas[number].get(source, 0) + self._shift[source]
            if not self._quotas[number].get(source, 0) or self._step_ends[number] <= self.start.step:
                continue
            epochs = self.orders[source].epochs_at(wanted, phase.max_epochs)
            if epochs > phase.max_epochs + 1e-9:
                have = self.shards[source].num_tokens
                raise InputError(
                    f"phase {phase.name}: source {source} would be read {epochs:.2f} times, max_epochs is {phase.max_epochs:g}: "
                    f"{have:,} tokens available, {round(epochs * have):,} needed; lower its weight or the steps, or raise max_epochs"
                )

    def _own_rows(self, step: int) -> dict[str, int]:
        """Rows of each source in the first `step` steps of these phases."""
        if step == self.num_steps:
            return {source: self._before[-1][source] + self._quotas[-1].get(source, 0) for source in self._sources}
        phase = next(number for number, end in enumerate(self._step_ends) if step < end)
        begin = self._step_ends[phase - 1] if phase else 0
        here = drawn(self._quotas[phase], (step - begin) * self.rows_per_step)
        return {source: self._before[phase][source] + here.get(source, 0) for source in self._sources}

    def rows_read(self, step: int) -> dict[str, int]:
        """Rows of each source that the steps before `step` have read, those of earlier mixtures included."""
        own = {source: rows + self._shift[source] for source, rows in self._own_rows(step).items()}
        return self.start.rows | own

    def _place(self, step: int, index: int) -> tuple[str, int]:
        """Source of row `index` of `step`, and which of that source's rows it is."""
        if not (self.start.step <= step < self.num_steps and 0 <= index < self.rows_per_step):
            raise IndexError(
                f"row {index} of step {step}: there are steps {self.start.step} to {self.num_steps - 1} of {self.rows_per_step} rows"
            )
        phase = next(number for number, end in enumerate(self._step_ends) if step < end)
        begin = self._step_ends[phase - 1] if phase else 0
        source, nth = draw(self._quotas[phase], (step - begin) * self.rows_per_step + index)
        return source, nth + self._before[phase][source] + self._shift[source]

    def locate(self, step: int, index: int) -> tuple[str, int, int]:
        """Source, epoch and row in that epoch of row `index` of `step`."""
        source, nth = self._place(step, index)
        return source, *self.orders[source].locate(nth)

    def row(self, step: int, index: int) -> Row:
        """Row `index` (0 .. rows_per_step - 1) of `step` (0 .. num_steps - 1)."""
        source, nth = self._place(step, index)
        return read_row(self.shards[source], *self.orders[source].pieces(nth), self.context, source)

    @property
    def row_counts(self) -> dict[str, list[int]]:
        """What a run that goes on need not pack again: rows of each source's visits so far."""
        return {source: order.row_counts for source, order in self.orders.items()}

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides the rows: phases, shard contents, context, rows per step and seed."""
        phases = [[phase.name, phase.steps, phase.weights] for phase in self.phases]
        contents = {source: self.shards[source].fingerprint for source in self._sources}
        blocks = {source: order.blocks for source, order in self.orders.items() if order.num_blocks > 1}
        return fingerprint("mixture 1", phases, contents, self.context, self.rows_per_step, self.seed, *([blocks] if blocks else []))

    def report(self) -> dict[str, Any]:
        """Rows, targets and epochs per phase and source, and for each source what there is of it and how full its rows are.

        Targets and epochs of a source of several blocks are `estimated`, from the first block that is read.
        """
        phases = []
        for number, phase in enumerate(self.phases):
            sources = {}
            for source, rows in sorted(self._quotas[number].items()):
                before, order = self._before[number][source] + self._shift[source], self.orders[source]
                sources[source] = {
                    "rows": rows,
                    "tokens": order.targets_at(before + rows) - order.targets_at(before),
                    "epochs": order.epochs_at(before + rows) - order.epochs_at(before),
                }
            tokens = sum(one["tokens"] for one in sources.values())
            phases.append({"name": phase.name, "steps": phase.steps, "tokens": tokens, "sources": sources})
        totals = {source: self._source_report(source) for source in self._sources}
        return {"context": self.context, "rows_per_step": self.rows_per_step, "phases": phases, "sources": totals}

    def _source_report(self, source: str) -> dict[str, Any]:
        rows = self._before[-1][source] + self._quotas[-1].get(source, 0) + self._shift[source]
        shards, order = self.shards[source], self.orders[source]
        return {
            "tokens_available": shards.num_tokens,
            "documents": shards.num_documents,
            "blocks": order.num_blocks,
            "estimated": order.num_blocks > 1,
            "rows": rows,
            "tokens": order.targets_at(rows),
            "epochs": order.epochs_at(rows),
            "filled": order.fill(),
        }


def read_row(shards: TokenShards, starts: IntArray, lengths: IntArray, context: int, source: str) -> Row:
    """The row whose pieces are those spans of the source's long row of ids; free slots are filled with `<|endoftext|>`."""
    slots = context + 1
    free = slots - int(lengths.sum())
    pieces: list[NDArray[Any]] = [
        shards.read(start, start + length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    if free:
        pieces.append(np.full(free, shards.end_of_text_id))
    ids = np.concatenate(pieces).astype(np.int64)
    sizes = np.array([len(piece) for piece in pieces])
    documents = np.repeat(np.arange(len(sizes)), sizes)
    positions = np.arange(slots) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    inside = (documents[1:] == documents[:-1]) & (documents[1:] < len(lengths))
    targets = np.where(inside, ids[1:], IGNORED)
    return Row(ids, positions[:-1], documents[:-1], targets, source)


def check_sources(phases: list[PhaseRecipe], shards: dict[str, TokenShards]) -> None:
    """Every weighted source has shards, all made with one tokenizer."""
    if not phases:
        raise InputError("pretrain: no phase; at least one [[pretrain.phases]] is needed")
    for phase in phases:
        for source in phase.weights:
            if source not in shards:
                raise InputError(
                    f"phase {phase.name}: no token shards of source {source!r}; there is {', '.join(sorted(shards)) or 'none'}"
                )
    first, *others = shards.values()
    for other in others:
        if other.tokenizer_sha256 != first.tokenizer_sha256:
            raise InputError(
                f"{other.folder}: made with another tokenizer than {first.folder}; write both again with `phial data tokenize`"
            )


def quotas(weights: dict[str, float], rows: int) -> dict[str, int]:
    """How many of `rows` each source gets: within one row of its share, summing to `rows` (largest remainders; ties by name)."""
    total = sum(weights.values())
    shares = {source: rows * weight / total for source, weight in sorted(weights.items()) if weight > 0}
    whole = {source: int(share) for source, share in shares.items()}
    by_remainder = sorted(shares, key=lambda source: (whole[source] - shares[source], source))
    for source in by_remainder[: rows - sum(whole.values())]:
        whole[source] += 1
    return {source: count for source, count in whole.items() if count > 0}


def draw(quota: dict[str, int], row: int) -> tuple[str, int]:
    """The source of a phase's row, and how many rows of that source came before it in the phase.

    One source after another takes its evenly spaced rows out of those that are left: of n rows it has taken round(n · count / rows). Exact
    integers, so every count is met exactly at the end of the phase, and no state is carried from row to row.
    """
    left = sum(quota.values())
    *first, last = quota.items()
    for source, count in first:
        taken = (2 * row * count + left) // (2 * left)
        if (2 * (row + 1) * count + left) // (2 * left) > taken:
            return source, taken
        row, left = row - taken, left - count
    return last[0], row


def drawn(quota: dict[str, int], row: int) -> dict[str, int]:
    """How many of a phase's first `row` rows each source has: what `draw` counts."""
    left = sum(quota.values())
    found: dict[str, int] = {}
    *first, last = quota.items()
    for source, count in first:
        found[source] = (2 * row * count + left) // (2 * left)
        row, left = row - found[source], left - count
    return found | {last[0]: row}
