"""The last pass: each measured page to its file and its row of the ledger, a batch at a time."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from data_pipeline.web.funnel import Funnel
from data_pipeline.web.measures import measure
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.settle import (
    ANSWER,
    COVERAGE,
    EMPTIED,
    EXACT,
    NEAR,
    NGRAMS,
    PASSED,
    REASONS,
    SAME_ADDRESS,
    WHOLE,
    Crawl,
    Settled,
    least_words,
)
from data_pipeline.web.tables import DROPPED, KEPT, LEDGER, SEGMENT, TableWriter
from data_pipeline.web.verdicts import Verdicts, judge_batch


def route(recipe: WebRecipe, crawl: Crawl, settled: Settled, folder: Path, funnel: Funnel) -> None:
    """Writes kept.parquet, held_out.parquet, dropped.parquet and ledger.parquet into `folder` and counts every page in the funnel."""
    labels = settled.contamination.labels() if settled.contamination is not None else {}
    names = [name for name in SEGMENT.names if name not in ("text_key", "address_key", "signature", "hits")]
    with (
        TableWriter(folder / "kept.parquet", KEPT) as kept,
        TableWriter(folder / "held_out.parquet", KEPT) as held_out,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
        TableWriter(folder / "ledger.parquet", LEDGER) as ledger,
    ):
        for place, batch in crawl.batches(names):
            rows = without_lines(ledger_rows(recipe, batch, place, settled, labels), place, settled)
            outcome = np.array(rows.column("outcome").to_pylist())
            funnel.count(rows)
            ledger.add(rows)
            for writer, name in ((kept, "kept"), (held_out, "held_out"), (dropped, "dropped")):
                chosen = np.flatnonzero(outcome == name)
                if len(chosen):
                    writer.add(rows.take(pa.array(chosen)))


def without_lines(rows: pa.RecordBatch, place: int, settled: Settled) -> pa.RecordBatch:
    """Rows from `place` on, those that stay with their repeated lines taken out, and what they lost with them."""
    if settled.lines is None:
        return rows
    stays = np.array(rows.column("outcome").to_pylist()) != "dropped"
    texts, domains = rows.column("text").to_pylist(), rows.column("domain").to_pylist()
    lost = {name: np.zeros(rows.num_rows, np.int64) for name in ("removed_characters", "removed_bytes", "removed_words")}
    words = rows.column("words").to_pylist()
    for number in np.flatnonzero(stays).tolist():
        edited, characters = settled.lines.edit(place + number, texts[number], domains[number])
        if characters:
            lost["removed_characters"][number] = characters
            lost["removed_bytes"][number] = len(texts[number].encode()) - len(edited.encode())
            lost["removed_words"][number] = words[number] - measure(edited)[0].words
            texts[number] = edited
    columns = {name: rows.column(name) for name in rows.schema.names} | {"text": pa.array(texts, pa.string())}
    return pa.RecordBatch.from_pydict(columns | {name: pa.array(values) for name, values in lost.items()})


def ledger_rows(
    recipe: WebRecipe, batch: pa.RecordBatch, place: int, settled: Settled, labels: Mapping[int, str] = MappingProxyType({})
) -> pa.RecordBatch:
    """The batch with every column that the written tables have beyond what was measured; `labels` are the benchmark items of pages."""
    size = batch.num_rows
    places = np.arange(place, place + size)
    verdicts = judge_batch(recipe, batch)
    drop_settled(recipe, verdicts, settled, places)
    passed, held_out = verdicts.passed, settled.held_out[places]
    stays, firsts = settled.stays[places].tolist(), settled.firsts[places].tolist()
    alone = [stay == own and stay not in settled.names for stay, own in zip(stays, places.tolist(), strict=True)]
    representative = ["" if single else settled.names[stay] for single, stay in zip(alone, stays, strict=True)]
    cluster = ["" if single else settled.names[first] for single, first in zip(alone, firsts, strict=True)]
    duplicate = [name if stay != own else "" for name, stay, own in zip(representative, stays, places.tolist(), strict=True)]
    added = {
        "reason": verdicts.reason,
        "measure": verdicts.measure,
        "value": verdicts.value,
        "threshold": verdicts.threshold,
        "clean": verdicts.clean & passed,
        "outcome": np.where(~passed, "dropped", np.where(held_out, "held_out", "kept")),
        "contamination": [labels.get(one, "") for one in places.tolist()],
        "cluster": cluster,
        "representative": representative,
        "duplicate_of": duplicate,
        "source": ["web"] * size,
        "kind": [""] * size,
        "family": [""] * size,
        **{name: np.zeros(size, np.int64) for name in ("removed_characters", "removed_bytes", "removed_words")},
    }
    columns = {name: batch.column(name) for name in batch.schema.names} | {name: pa.array(values) for name, values in added.items()}
    return pa.RecordBatch.from_pydict(columns)


def drop_settled(recipe: WebRecipe, verdicts: Verdicts, settled: Settled, places: np.ndarray) -> None:
    """Duplicates and contaminated pages: what only the whole crawl could tell."""
    fates = settled.fate[places]
    thresholds = {
        SAME_ADDRESS: 1.0,
        EXACT: 1.0,
        NEAR: recipe.duplicates.threshold,
        NGRAMS: 1.0,
        WHOLE: recipe.decontamination.whole_coverage,
        COVERAGE: recipe.decontamination.coverage,
        ANSWER: recipe.decontamination.near_coverage,
        EMPTIED: float(least_words(recipe)),
    }
    for fate, (reason, measured_by) in REASONS.items():
        rows = np.flatnonzero(fates == fate)
        verdicts.drop(rows, reason, measured_by, settled.value[places[rows]].astype(float), thresholds[fate])
    assert not (verdicts.passed & (fates != PASSED)).any()
