"""Random pages to look at: a few that were kept and a few of each reason, the same ones for the same build and seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import InputError

# What is shown of a page beside its text; columns that a file does not have are left out.
SHOWN = ["id", "url", "measure", "value", "threshold", "duplicate_of", "language", "words"]


def mixed(rows: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random uint64 for each row number (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014)."""
    with np.errstate(over="ignore"):
        found = (rows.astype(np.uint64) + np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return found ^ (found >> np.uint64(31))


def random_pages(path: Path, by: str | None, count: int, characters: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """`count` random rows for each value of the column `by`, or of the whole file; texts are read for the chosen rows' groups alone."""
    if not count or not path.exists():
        return {}
    try:
        table = pq.ParquetFile(path, read_dictionary=[by] if by else None)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: damaged ({error}); run `phial data build` again") from error
    with table:
        chosen = choose(table, by, count, seed)
        shown = [name for name in [*SHOWN, "text"] if name in table.schema_arrow.names]
        found: dict[str, list[dict[str, Any]]] = {key: [] for key in sorted(chosen)}
        wanted = sorted((row, key) for key, rows in chosen.items() for row in rows)
        start = 0
        for group in range(table.num_row_groups):
            stop = start + table.metadata.row_group(group).num_rows
            here = [(row - start, key) for row, key in wanted if start <= row < stop]
            if here:
                for row, key in zip(rows_of(table, group, shown, [row for row, _ in here]), [key for _, key in here], strict=True):
                    row["text"], row["cut"] = cut(row.get("text") or "", characters)
                    found[key].append(row)
            start = stop
    return found


def choose(table: pq.ParquetFile, by: str | None, count: int, seed: int) -> dict[str, list[int]]:
    """The row numbers of each key: those with the least pseudo-random numbers."""
    best: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    start = 0
    for batch in table.iter_batches(65_536, columns=[by] if by else ["id"]):
        rows = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        column = batch.column(0)
        if by and pa.types.is_dictionary(column.type):
            codes, words = column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
        else:
            codes, words = np.zeros(len(rows), np.int64), [""]
        for code in np.unique(codes).tolist():
            here = rows[codes == code]
            known, ranks = best.get(words[code], (rows[:0], mixed(rows[:0], seed)))
            known, ranks = np.concatenate([known, here]), np.concatenate([ranks, mixed(here, seed)])
            order = np.argsort(ranks, kind="stable")[:count]
            best[words[code]] = (known[order], ranks[order])
    return {key: rows.tolist() for key, (rows, _) in best.items()}


def rows_of(table: pq.ParquetFile, group: int, columns: list[str], rows: list[int]) -> list[dict[str, Any]]:
    """Single rows of a row group, in pieces, so that a group of long texts is never whole in memory twice."""
    found: list[dict[str, Any]] = []
    start = 0
    for batch in table.iter_batches(4096, row_groups=[group], columns=columns):
        found += batch.take(pa.array([row - start for row in rows if start <= row < start + batch.num_rows], pa.int64())).to_pylist()
        start += batch.num_rows
    return found


def cut(text: str, characters: int) -> tuple[str, bool]:
    """The beginning of a text without control characters, which a page may not hold, and whether there is more."""
    begun = "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text[:characters])
    return begun, len(text) > characters
