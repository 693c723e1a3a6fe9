"""A build's folder made of numbers: ledger, kept, held-out and dropped pages, funnel.json and speed.json of a crawl that never was.

Files differ in how much of them is good, domains follow a power law, clusters of duplicates too, and values fall where their reasons say.
Chunks are made and written one after another, so ten million rows take little memory.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import storage
from data_pipeline.web.funnel import Funnel
from data_pipeline.web.measures import Values
from data_pipeline.web.tables import DROPPED, KEPT, LEDGER, TableWriter

CHUNK = 250_000
WORDS = np.array([*"abcdefgh", "river", "hill", "roads", "that", "go", "to", "town", "where", "people", "buy", "bread"])
SHARES = [field.name for field in dataclasses.fields(Values) if field.type in (float, "float")]
COUNTS = [field.name for field in dataclasses.fields(Values) if field.type in (int, "int")]
# reason, measured by, threshold, how its values are drawn (low, high)
FATES = (
    ("http_status", "http_status", 299.0, (301, 599), 0.04),
    ("language", "de", 1000.0, (0, 1000), 0.22),
    ("too_short", "words", 50.0, (0, 50), 0.16),
    ("repetition", "duplicate_5grams", 0.15, (0.15, 0.9), 0.08),
    ("lists", "short_lines", 0.67, (0.67, 1.0), 0.06),
)


def make_web_folder(
    folder: Path,
    rows: int = 20_000,
    files: int = 20,
    seed: int = 1,
    texts: bool = True,
    leave_out: tuple[str, ...] = (),
    chunk: int = CHUNK,
    nasty: str = "",
) -> dict[str, Any]:
    """Writes the folder; returns counts that a report must find again. `nasty` becomes the text of some pages of every outcome."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    clusters, firsts = clusters_of(rows, chance)
    schema = pa.schema([field for field in LEDGER if field.name not in leave_out])
    funnel = Funnel(2)
    with (
        TableWriter(folder / "ledger.parquet", schema) as ledger,
        TableWriter(folder / "kept.parquet", KEPT) as kept,
        TableWriter(folder / "held_out.parquet", KEPT) as held_out,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        for start in range(0, rows, chunk):
            batch = chunk_of(start, min(chunk, rows - start), rows, files, clusters, firsts, chance, texts, nasty)
            ledger.add(batch)
            if texts:
                funnel.count(batch)
                outcome = np.array(batch.column("outcome").to_pylist())
                for writer, name in ((kept, "kept"), (held_out, "held_out"), (dropped, "dropped")):
                    chosen = np.flatnonzero(outcome == name)
                    writer.add(batch.take(pa.array(chosen)))
    if texts:
        storage.write_json(folder / "funnel.json", funnel.record())
    stages = [
        {"name": name, "seconds": seconds * rows / 1e4, "cpu_seconds": 2 * seconds * rows / 1e4, "documents": rows, "bytes": rows * 60_000}
        for name, seconds in (("measure", 8.0), ("settle", 0.5), ("route", 0.9))
    ]
    storage.write_json(folder / "speed.json", {"stages": stages, "workers": 2, "pages_per_second": 1250.0, "measured_by": "pages"})
    return {"clusters": clusters, "firsts": firsts}


def clusters_of(rows: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(the cluster of each row, the first row of each cluster): sizes by a power law, members anywhere in the crawl."""
    sizes = np.minimum(np.floor(chance.pareto(1.6, rows) + 1), max(rows // 50, 2)).astype(np.int64)
    owners = np.repeat(np.arange(rows), sizes)[:rows]
    owners = chance.permutation(owners)
    firsts = np.full(rows, rows, np.int64)
    np.minimum.at(firsts, owners, np.arange(rows))
    return owners, firsts


def id_of(row: np.ndarray, rows: int, files: int) -> np.ndarray:
    """The id of a row: file, offset, record."""
    per = -(-rows // files)
    return np.array([f"part-{one // per:05d}.warc.gz:{(one % per) * 20_011}:{one % per}" for one in row.tolist()], object)


def chunk_of(
    start: int,
    size: int,
    rows: int,
    files: int,
    clusters: np.ndarray,
    firsts: np.ndarray,
    chance: np.random.Generator,
    texts: bool,
    nasty: str,
) -> pa.RecordBatch:
    """The rows from `start`: every column of every table."""
    per = -(-rows // files)
    places = np.arange(start, start + size)
    file = places // per
    good = 0.4 + 0.5 * np.sin(file * 12.9898) ** 2  # how much of a file is good, by its number
    values: dict[str, Any] = {name: np.round(chance.beta(1.2, 14, size), 4) for name in SHARES}
    values |= {name: chance.poisson(6, size) for name in COUNTS}
    values["words"] = np.maximum(np.exp(chance.normal(6, 0.9, size)), 50).astype(np.int64)
    values["mean_word_length"] = np.round(chance.normal(5, 0.5, size), 3)
    reason, measure = np.full(size, "", object), np.full(size, "", object)
    value, threshold = np.zeros(size), np.zeros(size)
    draw = chance.random(size) * (0.5 + good)
    edge = 0.0
    language = np.full(size, "en", object)
    for name, measured_by, limit, (low, high), share in FATES:
        here = np.flatnonzero((draw >= edge) & (draw < edge + share))
        edge += share
        reason[here], measure[here], threshold[here] = name, measured_by, limit
        value[here] = np.round(chance.uniform(low, high, len(here)), 4)
        if measured_by in values:
            values[measured_by][here] = value[here]
            value[here] = values[measured_by][here]
        if name == "language":
            language[here] = "de"
    passed = reason == ""
    cluster, representative, duplicate_of = (np.full(size, "", object) for _ in range(3))
    own, first = clusters[places], firsts[clusters[places]]
    several = np.flatnonzero(passed & (np.bincount(clusters, minlength=len(firsts))[own] > 1))
    cluster[several] = id_of(first[several], rows, files)
    representative[several] = cluster[several]
    copies = several[places[several] != first[several]]
    reason[copies], measure[copies], value[copies], threshold[copies] = "near_duplicate", "similarity", 0.9, 0.7
    duplicate_of[copies] = representative[copies]
    left = np.flatnonzero(reason == "")
    dirty = left[chance.random(len(left)) < 0.002]
    contamination = np.full(size, "", object)
    contamination[dirty] = "mmlu:test/1\nmmlu:test/2"
    reason[dirty], measure[dirty], value[dirty], threshold[dirty] = "contaminated", "long_ngrams", 3.0, 1.0
    held = (reason == "") & (chance.random(size) < 0.03)
    outcome = np.where(reason != "", "dropped", np.where(held, "held_out", "kept")).astype(object)
    domain = np.minimum(chance.zipf(1.5, size), rows)
    empty = reason == "http_status"
    written = {"words": values["words"], "text_bytes": values["words"] * 6, "characters": values["words"] * 6}
    columns: dict[str, Any] = {
        **values,
        **written,
        "id": id_of(places, rows, files),
        "file": np.array([f"crawl/part-{one:05d}.warc.gz" for one in file.tolist()], object),
        "offset": (places % per) * 20_011,
        "record": places % per,
        "url": np.array([f"http://site{one}.example/{place}" for one, place in zip(domain.tolist(), places.tolist(), strict=True)], object),
        "domain": np.array([f"site{one}.example" for one in domain.tolist()], object),
        "snapshot": np.full(size, "CC-MADE-1", object),
        "fetched": np.full(size, "2026-01-01T00:00:00Z", object),
        "robots": np.full(size, "", object),
        "licence": np.where(chance.random(size) < 0.01, "by-sa", "").astype(object),
        "html_bytes": np.exp(chance.normal(10.3, 0.8, size)).astype(np.int64),
        "language": language,
        "second_language": np.where(chance.random(size) < 0.02, "en", "").astype(object),
        "language_distance": chance.integers(100, 900, size),
        "extraction": np.where(chance.random(size) < 0.95, "blocks", "blocks (links)").astype(object),
        **{f"personal_{kind}": (chance.random(size) < 0.01).astype(np.int64) for kind in ("email", "phone", "ip", "card", "iban")},
        "contamination": contamination,
        "reason": reason,
        "measure": measure,
        "value": value,
        "threshold": threshold,
        "cluster": cluster,
        "representative": representative,
        "outcome": outcome,
        "clean": (outcome == "kept") & (chance.random(size) < 0.6),
        "quality": np.round(chance.normal(2, 1, size), 3),
        "quality_kind_probability": np.full(size, 0.5),
        "quality_kind": np.where(chance.random(size) < 0.5, "reference", "news").astype(object),
        "duplicate_of": duplicate_of,
        "source": np.full(size, "web", object),
        "kind": np.full(size, "", object),
        "family": np.full(size, "", object),
        **{name: np.zeros(size, np.int64) for name in ("removed_characters", "removed_bytes", "removed_words")},
        "text": words_of(size, chance, nasty) if texts else np.full(size, "", object),
    }
    return pa.RecordBatch.from_pydict({name: masked(name, column, empty) for name, column in columns.items()}, full_schema())


def words_of(size: int, chance: np.random.Generator, nasty: str) -> np.ndarray:
    found = [" ".join(line) for line in WORDS[chance.integers(0, len(WORDS), (size, 12))]]
    return np.array([nasty if nasty and place % 3 == 0 else text for place, text in enumerate(found)], object)


def masked(name: str, column: Any, empty: np.ndarray) -> pa.Array:
    """Pages of which nothing was measured have no values."""
    measured = name in SHARES or name in COUNTS or name in ("quality", "quality_kind_probability", "text_bytes", "language_distance")
    return pa.array(column, mask=empty if measured else None)


def full_schema() -> pa.Schema:
    """Every column of every table."""
    fields: dict[str, pa.Field] = {}
    for schema in (LEDGER, KEPT, DROPPED):
        fields |= {field.name: field for field in schema}
    return pa.schema(list(fields.values()))
