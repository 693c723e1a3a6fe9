"""The ledger as a stream of batches: any columns, a few of them missing in ledgers of older builds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.errors import InputError

BATCH = 65_536
NEEDED = ("id", "outcome")
# Numbers that say where a page lies or what dropped it, not what was measured of it.
NO_MEASURES = frozenset({"offset", "record", "value", "threshold", "removed_bytes", "removed_words"})
CODED = ("file", "domain", "snapshot", "language", "second_language", "extraction", "quality_kind", "robots", "licence")


class Ledger:
    """A ledger on disk. Memory holds one batch of the asked columns at a time."""

    def __init__(self, path: Path) -> None:
        try:
            known = pq.read_schema(path).names
            coded = [name for name in (*CODED, "reason", "measure", "outcome") if name in known]
            self.table = pq.ParquetFile(path, read_dictionary=coded, buffer_size=1 << 20)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no ledger; `phial data build` writes it") from error
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: damaged ({error}); run `phial data build` again") from error
        self.names = list(self.table.schema_arrow.names)
        self.rows = self.table.metadata.num_rows
        missing = [name for name in NEEDED if name not in self.names]
        if missing:
            self.table.close()
            raise InputError(f"{path}: no column {missing[0]!r}; a ledger of `phial data build` is needed, got {', '.join(self.names[:8])}")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *caught: object) -> None:
        self.table.close()

    def measures(self) -> list[str]:
        """The columns of measured values, in their order."""
        schema = self.table.schema_arrow
        return [
            name
            for name in self.names
            if (pa.types.is_integer(schema.field(name).type) or pa.types.is_floating(schema.field(name).type))
            and name not in NO_MEASURES
            and not name.startswith("personal_")
        ]

    def whole_numbers(self, name: str) -> bool:
        return pa.types.is_integer(self.table.schema_arrow.field(name).type)

    def batches(self, names: list[str]) -> Iterator["Rows"]:
        """The columns that are there, a batch at a time, in crawl order."""
        wanted = [name for name in dict.fromkeys(names) if name in self.names]
        for batch in self.table.iter_batches(BATCH, columns=wanted):
            yield Rows(batch)


class Rows:
    """A batch of the ledger. A missing column reads as not measured: NaN, 0, the empty string, false."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.size = batch.num_rows

    def has(self, name: str) -> bool:
        return name in self.batch.schema.names

    def floats(self, name: str) -> np.ndarray:
        """float64 [rows], NaN where nothing was measured."""
        if not self.has(name):
            return np.full(self.size, np.nan)
        return self.batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)

    def counts(self, name: str) -> np.ndarray:
        """int64 [rows], 0 where nothing was measured."""
        if not self.has(name):
            return np.zeros(self.size, np.int64)
        return pc.fill_null(self.batch.column(name), 0).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)

    def flags(self, name: str) -> np.ndarray:
        """bool [rows]."""
        if not self.has(name):
            return np.zeros(self.size, bool)
        return pc.fill_null(self.batch.column(name), False).to_numpy(zero_copy_only=False)

    def strings(self, name: str) -> pa.Array:
        """A column of strings without nulls."""
        if not self.has(name):
            return pa.array([""] * self.size, pa.string())
        column = self.batch.column(name)
        return pc.fill_null(column.dictionary_decode() if pa.types.is_dictionary(column.type) else column, "")

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A column of few different strings: (number of its string for each row: int64 [rows], the strings)."""
        if not self.has(name):
            return np.zeros(self.size, np.int64), [""]
        column = self.batch.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        words = [*column.dictionary.to_pylist(), ""]
        found = pc.fill_null(column.indices, len(words) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
        return found, [word or "" for word in words]

    def equals(self, name: str, *words: str) -> np.ndarray:
        """Where a column has one of the words: bool [rows]."""
        found, known = self.codes(name)
        return np.isin(found, [number for number, word in enumerate(known) if word in words])


def filled(strings: pa.Array) -> pa.Array:
    """The strings that are not empty."""
    return strings.filter(pc.call_function("not_equal", [strings, pa.scalar("")]))
