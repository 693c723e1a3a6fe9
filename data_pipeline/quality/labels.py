"""Labels and the documents they belong to: files in, one checked table out."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.quality.rubric import KINDS
from data_pipeline.records import Document, read_documents

# Second-level names under which a country sells names: a site there has three parts.
SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gob", "gov", "go", "ne", "net", "nom", "or", "org", "sch"})


@dataclass(frozen=True)
class Example:
    """A document with its label: score 0 to 5; kind "" where none was given."""

    id: str
    text: str
    site: str
    url: str
    score: float
    kind: str


@dataclass(frozen=True)
class Label:
    """One row of a labels file; `text` and `url` are there when the file brings its documents along."""

    id: str
    score: float
    kind: str = ""
    text: str = ""
    url: str = ""


def site_of(url: str, identity: str) -> str:
    """The name under which a page's pages are published (`docs.site.co.uk` -> `site.co.uk`); a document without address is its own site.

    It is two parts of the host, or three under names such as `co.uk`; there is no list of public suffixes behind it, so hosts of a
    service that gives everybody a name count as one site. An address in numbers is a site.
    """
    try:
        host = (urlsplit(url if "://" in url else f"//{url}").hostname or "").rstrip(".")
    except ValueError:
        host = ""
    if not host:
        return f"id:{identity}"
    parts = host.split(".")
    if ":" in host or parts[-1].isdigit():
        return host
    three = len(parts) > 2 and len(parts[-1]) == 2 and parts[-2] in SECOND_LEVEL
    return ".".join(parts[-3 if three else -2 :])


def read_texts(pattern: str) -> Iterator[Document]:
    """Documents of Parquet or JSON-lines files (`id`, `text`, `url`): a path, URL or glob, streamed."""
    for path in storage.expand(pattern):
        if is_parquet(path):
            yield from read_documents(path)
            continue
        for number, row in enumerate(storage.read_json_lines(path), 1):
            if not isinstance(row.get("id"), str) or not isinstance(row.get("text"), str):
                raise InputError(f"{path}, row {number}: a document needs id and text, both text; got {sorted(row)[:8]}")
            yield Document(id=row["id"], text=row["text"], source=str(row.get("source") or ""), url=str(row.get("url") or ""))


def is_parquet(path: str) -> bool:
    with storage.open_read(path) as stream:
        return stream.read(4) == b"PAR1"


def read_labels(pattern: str) -> dict[str, Label]:
    """Labels by id, in the order of the file: JSON lines or Parquet with id (or text), score 0-5 and, optionally, kind, text and url.

    A row without an id takes a hash of its text as one. An id that comes twice is refused: which of the two holds cannot be told.
    """
    labels: dict[str, Label] = {}
    for path in storage.expand(pattern):
        rows = parquet_rows(path) if is_parquet(path) else storage.read_json_lines(path)
        for number, row in enumerate(rows, 1):
            label = checked_label(row, f"{path}, row {number}")
            if label.id in labels:
                raise InputError(f"{path}, row {number}: the id {label.id!r} has a label already; one label an id is needed")
            labels[label.id] = label
    if not labels:
        raise InputError(f"{pattern}: no labels in it")
    return labels


def parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    with storage.open_read(path) as stream:
        try:
            table = pq.ParquetFile(stream)
            names = [name for name in ("id", "text", "url", "score", "kind") if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=names):
                yield from batch.to_pylist()
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file that can be read ({error})") from error


def checked_label(row: dict[str, Any], where: str) -> Label:
    score, kind = row.get("score"), row.get("kind") or ""
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 5:
        raise InputError(f"{where}: score = {score!r}; a number from 0 to 5 is needed")
    if kind not in ("", *KINDS):
        raise InputError(f"{where}: kind = {kind!r}; there is {', '.join(KINDS)}, or none")
    text, identity = row.get("text") or "", row.get("id")
    if not isinstance(text, str) or not (identity is None or isinstance(identity, str | int)):
        raise InputError(f"{where}: id and text must be text")
    if identity is None or identity == "":
        if not text:
            raise InputError(f"{where}: neither id nor text; one of them is needed")
        identity = "text:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return Label(str(identity), float(score), kind, text, str(row.get("url") or ""))


def labelled(labels: dict[str, Label], documents: str | None) -> tuple[list[Example], list[str]]:
    """The labels with their documents, in the labels' order, and the ids whose document is missing.

    A label that brings its text needs no document; where both are there, the label's own text counts.
    """
    found: dict[str, Document] = {}
    for document in read_texts(documents) if documents else ():
        if document.id in labels:
            found[document.id] = document
    examples, missing = [], []
    for label in labels.values():
        document = found.get(label.id)
        text = label.text or (document.text if document else "")
        if not text:
            missing.append(label.id)
            continue
        url = label.url or (document.url if document else "")
        examples.append(Example(label.id, text, site_of(url, label.id), url, label.score, label.kind))
    if not examples:
        raise InputError(
            f"none of the {len(labels)} labels has a document in {documents}"
            if documents
            else "the labels bring no text along; their documents are needed (--documents)"
        )
    return examples, missing


def hash_of(examples: list[Example]) -> str:
    """SHA-256 over ids, scores, kinds, sites and texts, whatever their order."""
    digest = hashlib.sha256()
    for one in sorted(examples, key=lambda example: example.id):
        text = hashlib.sha256(one.text.encode("utf-8", "surrogatepass")).hexdigest()
        digest.update(json.dumps([one.id, one.score, one.kind, one.site, text]).encode())
    return digest.hexdigest()


def in_batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    while batch := list(islice(rows, size)):
        yield batch
