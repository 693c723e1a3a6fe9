"""A document, and its Parquet form: the record that every stage before the tokenizer reads and writes."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_write, open_read


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it came from."""

    id: str  # stable over reruns: file and record for web pages, family and number for synthetic text
    text: str
    source: str  # "web" or "synthetic"
    url: str = ""
    language: str = ""
    kind: str = ""  # web: empty; synthetic: lesson, worked example, exercise, ...
    family: str = ""  # synthetic: the skill


SCHEMA = pa.schema([(field.name, pa.string()) for field in dataclasses.fields(Document)])


def write_documents(path: str | Path, documents: Iterable[Document], rows_per_group: int = 4096) -> int:
    """Parquet, zstd, streamed in row groups, atomically; returns how many documents were written."""
    count = 0
    with atomic_write(path) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer:
        batch: list[Document] = []

        def flush() -> None:
            writer.write_batch(pa.RecordBatch.from_pylist([dataclasses.asdict(one) for one in batch], SCHEMA))
            batch.clear()

        for document in documents:
            batch.append(document)
            count += 1
            if len(batch) == rows_per_group:
                flush()
        if batch:
            flush()
    return count


def read_documents(path: str | Path) -> Iterator[Document]:
    """The documents of a Parquet file, streamed; columns beyond Document's are left alone."""
    try:
        with open_read(path) as stream:
            try:
                table = pq.ParquetFile(stream)
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: not a Parquet file ({error})") from error
            missing = sorted({"id", "text"} - set(table.schema_arrow.names))
            if missing:
                raise InputError(
                    f"{path}: no column {missing[0]!r}; the columns id and text are needed, got {', '.join(table.schema_arrow.names)}"
                )
            names = [name for name in SCHEMA.names if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=names):
                for row in batch.to_pylist():
                    row.setdefault("source", "")
                    yield Document(**{name: value or "" for name, value in row.items()})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
