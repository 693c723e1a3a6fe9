"""A mixture that was edited while a run was under way: the rows of steps before an edit stay what they were.

A history is a list of entries {"from_step", "phases"}: from that step on, rows follow those phases, whose shares count from the beginning
of their own first step as if they had held all along; only where each source stands is carried over. So the rows are a pure function of
(history, seed, step), and a history fits into a checkpoint's metadata.
"""

from typing import Any

from data_pipeline.engine.journal import fingerprint
from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture import Mixture, PhaseRecipe, Row, Start
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.tokens.source_order import SourceOrder

History = list[dict[str, Any]]


def first_history(phases: list[PhaseRecipe]) -> History:
    """That of a run that was never edited."""
    return [{"from_step": 0, "phases": [phase.model_dump(mode="json") for phase in phases]}]


def edited(history: History, phases: list[PhaseRecipe], step: int) -> History:
    """The history with other phases from `step` on; the same phases are no edit.

    Entries that would have begun later than `step` go: nothing was read by them.
    """
    entry = {"from_step": step, "phases": [phase.model_dump(mode="json") for phase in phases]}
    if history and history[-1]["phases"] == entry["phases"] and history[-1]["from_step"] <= step:
        return history
    total = sum(phase.steps for phase in phases)
    if total < step:
        raise InputError(f"the phases have {total} steps and {step} are done; an edited mixture needs at least as many")
    return [one for one in history if one["from_step"] < step] + [entry]


def sources_of(history: History) -> set[str]:
    """Every source that some entry reads."""
    return {source for entry in history for phase in entry["phases"] for source, weight in phase["weights"].items() if weight > 0}


class EditedMixture:
    """The mixtures of a history, one after another. Has what a `Mixture` has."""

    def __init__(
        self,
        history: History,
        shards: dict[str, TokenShards],
        context: int,
        rows_per_step: int,
        seed: int,
        row_counts: dict[str, list[int]] | None = None,
    ) -> None:
        """`row_counts` are a `Mixture`'s, of the same shards, context and seed."""
        self.history = history
        self.parts: list[Mixture] = []
        known = row_counts or {}
        self.orders = {
            source: SourceOrder(shards[source], context, f"{seed}/{source}", known.get(source, ()))
            for source in sorted(sources_of(history))
        }
        for entry in history:
            step = entry["from_step"]
            rows = self.parts[-1].rows_read(step) if self.parts else {}
            phases = [PhaseRecipe(**phase) for phase in entry["phases"]]
            self.parts.append(Mixture(phases, shards, context, rows_per_step, seed, Start(step, rows), self.orders))
        self.phases = self.parts[-1].phases
        self.num_steps = self.parts[-1].num_steps

    def part(self, step: int) -> Mixture:
        """The mixture that a step follows."""
        return next(part for part in reversed(self.parts) if part.start.step <= step)

    def row(self, step: int, index: int) -> Row:
        """Row `index` of `step`, counted over the whole run."""
        return self.part(step).row(step, index)

    def locate(self, step: int, index: int) -> tuple[str, int, int]:
        """Source, epoch and row in that epoch."""
        return self.part(step).locate(step, index)

    def rows_read(self, step: int) -> dict[str, int]:
        """Rows of each source that the steps before `step` have read."""
        return self.part(max(0, step - 1)).rows_read(step)

    @property
    def row_counts(self) -> dict[str, list[int]]:
        """What a run that goes on need not pack again: rows of each source's visits so far."""
        return {source: order.row_counts for source, order in self.orders.items()}

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides the rows, of a history without edits the same as its mixture's."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint()
        return fingerprint("history 1", [[part.start.step, part.fingerprint()] for part in self.parts])

    def report(self) -> dict[str, Any]:
        """That of the phases that hold now."""
        return self.parts[-1].report()
