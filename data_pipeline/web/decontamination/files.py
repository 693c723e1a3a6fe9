"""Decontaminates plain files of texts: Parquet with a column `text`, or JSON lines with a field `text`; other columns stay as they are.

Two passes over the files: the first matches every text, the second writes each row to `clean/` or `contaminated/`, under its file's name.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, expand, refuse_foreign
from data_pipeline.web.decontamination.decide import decide
from data_pipeline.web.decontamination.index import BenchmarkIndex, Hits
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.decontamination.report import write_contamination

BATCH = 1024
LINES = (".jsonl", ".jsonl.gz")
OWN = {"clean", "contaminated", "contamination.json", "hits.jsonl", "split"}


def decontaminate_files(
    patterns: list[str], settings: Decontamination, out: Path, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Writes clean/, contaminated/, contamination.json, hits.jsonl and split/ into the folder `out`; returns what contamination.json holds.

    `settings.benchmarks` names the folders. `progress(texts)` is called as texts are matched.
    """
    files = [Path(path) for pattern in patterns for path in expand(pattern)]
    for path in files:
        if not path.name.endswith((".parquet", *LINES)):
            raise InputError(f"{path}: .parquet, .jsonl or .jsonl.gz is needed")
    names = [path.name for path in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice}: two files of that name; what is kept of each is written under its own name, so names must differ")
    if not settings.benchmarks:
        raise InputError("no benchmarks; at least one folder of benchmark files is needed")
    refuse_foreign(out, OWN, "decontaminated files")
    index = BenchmarkIndex.build(settings.benchmarks, settings)
    all_hits: list[Hits] = []
    ids: dict[int, str] = {}
    for path in files:
        for name, text in texts(path):
            hits = index.match_text(text)
            if len(hits.grams):
                ids[len(all_hits)] = f"{path.name}:{name}"
            all_hits.append(hits)
            if progress is not None:
                progress(len(all_hits))
    verdicts = decide(index, all_hits, settings)
    dirty = np.zeros(len(all_hits), bool)
    dirty[list(verdicts.pages)] = True
    with atomic_folder(out) as folder:
        record = write_contamination(folder, index, verdicts, lambda page: ids[page], len(all_hits), settings)
        start = 0
        for path in files:
            start = route(path, folder, dirty, start)
    return record


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of every row; a row without an id is named by its number."""
    number = 0
    if path.name.endswith(LINES):
        for _, row in json_rows(path):
            yield str(row.get("id", number)), row["text"]
            number += 1
        return
    with open_table(path) as table:
        columns = [name for name in ("id", "text") if name in table.schema_arrow.names]
        for batch in table.iter_batches(BATCH, columns=columns):
            for row in batch.to_pylist():
                yield str(row.get("id") or number), row["text"] or ""
                number += 1


def open_table(path: Path) -> pq.ParquetFile:
    """A Parquet file with a column `text`."""
    try:
        table = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from error
    if "text" not in table.schema_arrow.names or not pa.types.is_string(table.schema_arrow.field("text").type):
        table.close()
        raise InputError(f"{path}: no column 'text' of strings; there is {', '.join(table.schema_arrow.names)}")
    return table


def json_rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every line that is not blank, as it is and as the object it spells."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not valid JSON ({error})") from error
                if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                    raise InputError(f"{path}, line {number}: an object with a string 'text' is needed")
                yield line if line.endswith(b"\n") else line + b"\n", row
        except (OSError, EOFError) as error:
            raise InputError(f"{path}: damaged gzip data ({error})") from error


def route(path: Path, folder: Path, dirty: np.ndarray, start: int) -> int:
    """Writes the file's rows, the `start`-th text and those after it, to clean/ and contaminated/; returns the next file's start."""
    for name in ("clean", "contaminated"):
        (folder / name).mkdir(exist_ok=True)
    clean, found = folder / "clean" / path.name, folder / "contaminated" / path.name
    if path.name.endswith(LINES):
        with opened(clean) as good, opened(found) as bad:
            for line, _ in json_rows(path):
                (bad if dirty[start] else good).write(line)
                start += 1
        return start
    with (
        open_table(path) as table,
        pq.ParquetWriter(clean, table.schema_arrow, compression="zstd") as good,
        pq.ParquetWriter(found, table.schema_arrow, compression="zstd") as bad,
    ):
        for batch in table.iter_batches(BATCH * 4):
            marks = pa.array(dirty[start : start + len(batch)])
            start += len(batch)
            for writer, part in ((bad, batch.filter(marks)), (good, batch.filter(pa.array(~np.asarray(marks))))):
                if len(part):
                    writer.write_batch(part)
    return start


def opened(path: Path) -> Any:
    """A file to write; gzip members carry no time, so that equal rows are equal bytes."""
    return gzip.GzipFile(path, "wb", mtime=0) if path.suffix == ".gz" else open(path, "wb")
