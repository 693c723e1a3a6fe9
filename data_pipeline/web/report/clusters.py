"""Duplicate clusters of the ledger: how many of each size, and the largest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.web.report.ledger_table import Ledger, filled
from data_pipeline.web.report.tally import Tally

LARGEST = 10


@dataclass(frozen=True)
class Clusters:
    """Cluster sizes in pages, and how many clusters have each: int64 [different sizes] both, rising sizes; pages alone are not counted."""

    measured: bool
    sizes: np.ndarray
    clusters: np.ndarray
    largest: list[dict[str, Any]]

    @property
    def pages(self) -> int:
        """Pages that are in a cluster with others."""
        return int((self.sizes * self.clusters).sum())


def clusters_of(ledger: Ledger) -> Clusters:
    """A pass over the column of clusters; memory goes with their number."""
    empty = np.empty(0, np.int64)
    if "cluster" not in ledger.names:
        return Clusters(False, empty, empty, [])
    tally = Tally("cluster", ("pages",))
    for rows in ledger.batches(["cluster"]):
        names = filled(rows.strings("cluster"))
        if len(names):
            tally.add(names, {"pages": np.ones(len(names), np.int64)})
    table = tally.table()
    pages = table.column("pages").to_numpy()
    sizes, clusters = np.unique(pages[pages > 1], return_counts=True)
    return Clusters(True, sizes, clusters, largest(ledger, table.slice(0, LARGEST)))


def largest(ledger: Ledger, table: pa.Table) -> list[dict[str, Any]]:
    """The largest clusters with the page that stays for each; a second look, which ends when all are found."""
    wanted = {name: pages for name, pages in zip(*(column.to_pylist() for column in table.columns), strict=True) if pages > 1}
    stays: dict[str, str] = {}
    for rows in ledger.batches(["cluster", "representative"]):
        if len(stays) == len(wanted):
            break
        names, kept = rows.strings("cluster"), rows.strings("representative")
        left = pa.array([name for name in wanted if name not in stays], pa.string())
        here = pc.call_function("is_in", [names], pc.SetLookupOptions(left))
        for name, one in zip(names.filter(here).to_pylist(), kept.filter(here).to_pylist(), strict=True):
            stays.setdefault(name, one)
    return [{"cluster": name, "pages": pages, "representative": stays.get(name, "")} for name, pages in wanted.items()]
