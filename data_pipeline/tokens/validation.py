"""Rows that are held out: the same at every evaluation, whatever the seed."""

from itertools import pairwise

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture import PhaseRecipe, Row, read_row
from data_pipeline.tokens.packing import cut
from data_pipeline.tokens.shards import TokenShards


def validation_rows(shards: TokenShards, context: int, rows: int) -> list[Row]:
    """The first `rows` rows of a source's documents in stored order, each row filled until the next piece does not fit.

    As many rows as there are where the source has fewer. Source by source no token but a document's first is left out.
    """
    starts, lengths = cut(shards.ends, context + 1, np.arange(len(shards.ends)))
    begins, held = [0], 0
    for piece, length in enumerate(lengths.tolist()):
        if held + length > context + 1:
            if len(begins) == rows:
                begins.append(piece)
                break
            begins.append(piece)
            held = 0
        held += length
    else:
        begins.append(len(lengths))
    return [read_row(shards, starts[a:b], lengths[a:b], context, shards.source) for a, b in pairwise(begins) if b > a]


def check_held_out(validation: dict[str, int], phases: tuple[PhaseRecipe, ...]) -> None:
    """Refuses a source that is trained on, and a number of rows that is none."""
    for source, rows in validation.items():
        if rows < 1:
            raise InputError(f"[pretrain] validation: {source} = {rows}; at least one row is needed")
        for phase in phases:
            if phase.weights.get(source, 0) > 0:
                raise InputError(
                    f"[pretrain] validation: phase {phase.name} trains on {source} (weight {phase.weights[source]:g}); "
                    "a source that is held out has no weight in any phase"
                )
