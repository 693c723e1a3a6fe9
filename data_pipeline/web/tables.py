"""The columns of everything that a build stores: measured segments, kept, held-out and dropped pages, and the ledger."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import records
from data_pipeline.web.measures import Values

GROUP_BYTES = 32_000_000  # of Arrow data in a row group
PERSONAL = ("email", "phone", "ip", "card", "iban")


def strings(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


def numbers(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.int64()) for name in names]


VALUES = [(field.name, pa.int64() if field.type in (int, "int") else pa.float64()) for field in dataclasses.fields(Values)]
QUALITY = [("quality", pa.float64()), ("quality_kind", pa.string()), ("quality_kind_probability", pa.float64())]
PLACE = [*strings("id", "file"), *numbers("offset", "record"), *strings("url", "domain", "snapshot", "fetched", "robots", "licence")]
MEASURES = [
    *numbers("html_bytes", "text_bytes"),
    *strings("language", "second_language"),
    *numbers("language_distance"),
    *strings("extraction"),
    *VALUES,
    *QUALITY,
    *numbers(*(f"personal_{kind}" for kind in PERSONAL)),
]
REJECTION = [*strings("reason", "measure"), ("value", pa.float64()), ("threshold", pa.float64())]
PROBLEM = [*strings("problem", "problem_measure"), ("problem_value", pa.float64()), ("problem_threshold", pa.float64())]
KEYS = [("text_key", pa.binary()), ("address_key", pa.binary()), ("signature", pa.binary()), ("hits", pa.binary())]

# One row per record, as measured: nothing here depends on a threshold.
SEGMENT = pa.schema([*PLACE, *MEASURES, *PROBLEM, *KEYS, ("text", pa.string())])
# One row per record of the crawl, with what became of it.
LEDGER = pa.schema(
    [
        *PLACE,
        *MEASURES,
        *strings("contamination"),
        *REJECTION,
        *strings("cluster", "representative", "outcome"),
        ("clean", pa.bool_()),
        *numbers("removed_bytes", "removed_words"),  # with repeated lines; text_bytes and words are from before
    ]
)
KEPT = pa.schema(
    [
        *records.SCHEMA,
        *(
            pa.field(name, kind)
            for name, kind in [
                ("clean", pa.bool_()),
                ("language_distance", pa.int64()),
                ("extraction", pa.string()),
                ("removed_characters", pa.int64()),
                *VALUES,
                *QUALITY,
            ]
        ),
    ]
)
DROPPED = pa.schema([*strings("id", "url"), *REJECTION, *strings("duplicate_of", "language", "text")])


class TableWriter:
    """Record batches to a Parquet file (zstd), in row groups of about `GROUP_BYTES`, however the batches were cut."""

    def __init__(self, where: Path | IO[bytes], schema: pa.Schema) -> None:
        self.schema = schema
        self.writer = pq.ParquetWriter(where, schema, compression="zstd")
        self.waiting: list[pa.RecordBatch] = []
        self.bytes = 0
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds the columns of the schema; others are left out. Row groups end at row boundaries that depend on the rows alone."""
        batch = batch.select(self.schema.names)
        self.rows += batch.num_rows
        for start, stop, full in self.pieces(batch):
            self.waiting.append(batch.slice(start, stop - start))
            if full:
                self.flush()

    def pieces(self, batch: pa.RecordBatch) -> Iterator[tuple[int, int, bool]]:
        """The batch cut where a row group is full: (first row, row behind the last, whether the group is full then)."""
        sizes = row_bytes(batch)
        start = 0
        for row, size in enumerate(sizes):
            self.bytes += size
            if self.bytes >= GROUP_BYTES:
                yield start, row + 1, True
                start = row + 1
        if start < batch.num_rows:
            yield start, batch.num_rows, False

    def flush(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.Table.from_batches(self.waiting, self.schema).combine_chunks())
        self.waiting, self.bytes = [], 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        self.writer.close()


def row_bytes(batch: pa.RecordBatch) -> list[int]:
    """About how many bytes each row takes: 200, and its text."""
    if "text" not in batch.schema.names:
        return [200] * batch.num_rows
    lengths = pc.call_function("binary_length", [batch.column("text")])
    return [200 + (length or 0) for length in lengths.to_pylist()]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, streamed."""
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=256):
            yield from batch.to_pylist()
