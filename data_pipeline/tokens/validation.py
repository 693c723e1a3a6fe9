"""Rows that are held out: the same at every evaluation, whatever the seed."""

from collections.abc import Iterator
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
    begins, held, starts, lengths = [0], 0, [], []
    for start, length in pieces_in_order(shards, context):
        if held + length > context + 1:
            begins.append(len(starts))
            held = 0
            if len(begins) > rows:
                break
        held += length
        starts.append(start)
        lengths.append(length)
    else:
        begins.append(len(starts))
    spans = [(np.array(starts[a:b]), np.array(lengths[a:b])) for a, b in pairwise(begins) if b > a]
    return [read_row(shards, *span, context, shards.source) for span in spans]


def pieces_in_order(shards: TokenShards, context: int) -> Iterator[tuple[int, int]]:
    """Start and length of every piece in stored order; a shard's ends are read when the one before is used up."""
    for number in range(shards.num_shards):
        ends = shards.ends(number, number + 1)
        starts, lengths = cut(ends, context + 1, np.arange(len(ends)), int(shards.bounds[number]))
        yield from zip(starts.tolist(), lengths.tolist(), strict=True)


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
