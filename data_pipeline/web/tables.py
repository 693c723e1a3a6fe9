"""The columns of kept.parquet, held_out.parquet and dropped.parquet, and a writer that keeps one row group in memory."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import records
from data_pipeline.web.judge import Judged
from data_pipeline.web.measures import Values

GROUP_CHARACTERS = 16_000_000

VALUES = [(field.name, pa.int64() if field.type is int else pa.float64()) for field in dataclasses.fields(Values)]
EXTRA = [("clean", pa.bool_()), ("language_distance", pa.int64()), ("extraction", pa.string()), *VALUES]
KEPT = pa.schema([*records.SCHEMA, *(pa.field(name, kind) for name, kind in EXTRA)])
REJECTION = [("reason", pa.string()), ("measure", pa.string()), ("value", pa.float64()), ("threshold", pa.float64())]
DROPPED = pa.schema(
    [("id", pa.string()), ("url", pa.string()), *REJECTION, ("duplicate_of", pa.string()), ("language", pa.string()), ("text", pa.string())]
)
PERSONAL = ("email", "phone", "ip", "card", "iban")
SPOOL = pa.schema(
    [*KEPT, *(pa.field(name, kind) for name, kind in REJECTION), pa.field("html_bytes", pa.int64())]
    + [pa.field(f"personal_{kind}", pa.int64()) for kind in PERSONAL]
)


class TableWriter:
    """Rows to a Parquet file (zstd), a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.rows: list[dict[str, Any]] = []
        self.characters = 0

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.characters += len(row["text"]) + 200
        if self.characters > GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.writer.write_batch(pa.RecordBatch.from_pylist(self.rows, self.schema))
        self.rows, self.characters = [], 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        self.writer.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, streamed."""
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=256):
            yield from batch.to_pylist()


def spool_row(judged: Judged) -> dict[str, Any]:
    """One judged page as a row with every column."""
    row: dict[str, Any] = {
        "id": judged.id,
        "text": judged.text,
        "source": "web",
        "url": judged.url,
        "language": judged.language,
        "kind": "",
        "family": "",
        "clean": judged.clean,
        "language_distance": judged.language_distance,
        "extraction": judged.extraction,
        "html_bytes": judged.html_bytes,
    }
    row |= {name: None for name, _ in VALUES} if judged.values is None else dataclasses.asdict(judged.values)
    refusal = judged.rejection
    row |= dataclasses.asdict(refusal) if refusal else {"reason": "", "measure": "", "value": 0.0, "threshold": 0.0}
    return row | {f"personal_{kind}": judged.personal.get(kind, 0) for kind in PERSONAL}


def kept_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in KEPT.names}


def dropped_row(row: dict[str, Any], duplicate_of: str) -> dict[str, Any]:
    return {name: duplicate_of if name == "duplicate_of" else row[name] for name in DROPPED.names}
