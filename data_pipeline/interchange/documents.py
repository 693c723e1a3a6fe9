"""Documents as Parquet and as JSON lines, ours and other programs'.

Read: rows with a string `text`; `id` and the other fields of `records.Document` stand beside it or, as datatrove writes them, in an object
`metadata`. Written: our Parquet, or JSON lines with the fields that are not empty, which datatrove's reader takes as metadata.
"""

import dataclasses
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data_pipeline.errors import InputError
from data_pipeline.records import Document, write_documents
from data_pipeline.storage import atomic_write

FIELDS = tuple(field.name for field in dataclasses.fields(Document))
BATCH = 1024


class DocumentFile:
    """The documents of a file, read as often as wanted; `left_out` gathers the names of columns that a Document has no field for."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.path = path
        self.left_out: set[str] = set()

    def __iter__(self) -> Iterator[Document]:
        rows = parquet_rows(self.path) if self.path.suffix == ".parquet" else json_rows(self.path)
        for number, row in enumerate(rows):
            yield self.document(row, number)

    def document(self, row: dict[str, Any], number: int) -> Document:
        """A row as a Document; one without an id gets its number."""
        inner = row.get("metadata")
        known = {**inner, **row} if isinstance(inner, dict) else row
        self.left_out.update(name for name in known if name not in FIELDS and not (name == "metadata" and isinstance(inner, dict)))
        if not isinstance(known.get("text"), str):
            raise InputError(f"{self.path}, row {number}: a string 'text' is needed, got {known.get('text')!r:.40}")
        values = {name: "" if known.get(name) is None else str(known[name]) for name in FIELDS}
        return Document(**{**values, "id": values["id"] or f"{number:08d}"})


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error})") from error


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(f"{path}, line {number}: a JSON object is needed, got {type(row).__name__}")
                    yield row
        except (OSError, EOFError) as error:
            raise InputError(f"{path}: damaged gzip data ({error})") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error}); the file is truncated or damaged") from error


class DocumentDigest:
    """Of documents, field by field."""

    def __init__(self) -> None:
        self.hash, self.documents, self.characters = xxhash.xxh3_128(), 0, 0

    def watch(self, documents: Iterator[Document]) -> Iterator[Document]:
        for one in documents:
            for name in FIELDS:
                data = getattr(one, name).encode("utf-8", "surrogatepass")
                self.hash.update(len(data).to_bytes(8, "little") + data)
            self.documents += 1
            self.characters += len(one.text)
            yield one


def write_document_file(documents: Iterator[Document], path: Path) -> None:
    """By the name's ending: .parquet, .jsonl or .jsonl.gz; atomically."""
    if path.suffix == ".parquet":
        write_documents(path, documents)
        return
    with atomic_write(path) as stream:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed:
                write_lines(documents, packed)
        else:
            write_lines(documents, stream)


def write_lines(documents: Iterator[Document], stream: IO[bytes] | gzip.GzipFile) -> None:
    for one in documents:
        row = {name: value for name, value in dataclasses.asdict(one).items() if value or name in ("id", "text")}
        stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
