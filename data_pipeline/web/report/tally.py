"""Sums over groups of rows, however many batches they come in: memory goes with the number of groups, not of rows."""

import numpy as np
import pyarrow as pa

PENDING = 1_000_000  # rows of partial sums before they are joined


class Tally:
    """Sums of int64 columns per value of one column of strings."""

    def __init__(self, key: str, sums: tuple[str, ...]) -> None:
        self.key = key
        self.sums = sums
        self.parts: list[pa.Table] = []
        self.pending = 0
        self.limit = PENDING
        self.sorted: pa.Table | None = None

    def add(self, keys: pa.Array, columns: dict[str, np.ndarray]) -> None:
        """One batch: its keys, and a column for each sum."""
        table = pa.table({self.key: keys, **{name: pa.array(columns[name], pa.int64()) for name in self.sums}})
        part = self.joined(table)
        self.parts.append(part)
        self.pending += part.num_rows
        if self.pending > self.limit:
            whole = self.joined(pa.concat_tables(self.parts))
            self.parts, self.pending = [whole], 0
            self.limit = max(PENDING, whole.num_rows // 2)

    def joined(self, table: pa.Table) -> pa.Table:
        found = table.group_by(self.key).aggregate([(name, "sum") for name in self.sums])
        return found.select([self.key, *(f"{name}_sum" for name in self.sums)]).rename_columns([self.key, *self.sums])

    def table(self) -> pa.Table:
        """A row per key, those with the largest first sum first, equal ones by key; nothing can be added any more."""
        if self.sorted is None:
            empty = pa.table({self.key: pa.array([], pa.string()), **{name: pa.array([], pa.int64()) for name in self.sums}})
            whole = self.joined(pa.concat_tables([empty, *self.parts]))
            self.parts = []
            self.sorted = whole.sort_by([(self.sums[0], "descending"), (self.key, "ascending")])
        return self.sorted
