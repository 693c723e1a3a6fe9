"""Clusters of near duplicates from disk: signatures come in batches, and memory stays within a bound however many there are.

`add` appends signatures to one file and each band's keys to a file per band. `settle` goes through the bands: it sorts the band's (key,
document) records in runs that fit, merges the runs (Knuth, vol. 3, 5.4.1), looks up the signatures of those records whose key is not
alone, in the order of the file, and joins clusters as `clustering.py` says. What is found depends on the documents in their order, not on
batches or bounds.
"""

import contextlib
import itertools
import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.web.duplicates.clustering import OpenGroup, check_signatures, keys_of
from data_pipeline.web.duplicates.recipe import Duplicates
from data_pipeline.web.duplicates.runs import PLACE_BITS, merged, write_packed_run

IN_SNAPSHOT, IN_CRAWL = 1, 2  # levels: where a document was found to be a duplicate; 0: it is none
LEAST_MEMORY = 1 << 16
BUFFER = 1 << 22  # bytes of signatures that wait for one write
WINDOW = 1 << 26  # bytes of the signature file that are mapped at a time


class ClusterBuilder:
    """Signatures in, clusters out. `folder` is emptied, holds about (4 * rows + 8) * bands bytes per document, and is removed by `settle`.

    `memory` bounds the sort and look-up buffers in bytes; 13 bytes per document for the result come on top.
    """

    def __init__(self, folder: str | Path, settings: Duplicates, memory: int = 256 << 20) -> None:
        if memory < LEAST_MEMORY:
            raise InputError(f"clusters: {memory} bytes of memory; {LEAST_MEMORY} or more are needed")
        self.folder, self.settings, self.memory = Path(folder), settings, memory
        self.documents = 0
        self.levels = np.empty(0, np.uint8)
        self.compared = 0
        self.snapshots: list[tuple[int, int]] = []  # (snapshot, documents) in the order of coming
        self.waiting: list[np.ndarray] = []
        self.waiting_bytes = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.settled = False

    def place(self, band: int) -> Path:
        """The file of a band's keys; -1: of the signatures."""
        return self.folder / ("signatures.bin" if band < 0 else f"band-{band:03d}.bin")

    def add(self, batch: np.ndarray, snapshot: int = 0) -> None:
        """The next documents' signatures: uint32 [n, bands * rows]; `snapshot` is the number of the crawl's part that they are from."""
        if self.settled:
            raise InputError("clusters: already settled; a new builder is needed")
        if not 0 <= snapshot < 2**31:
            raise InputError(f"clusters: snapshot {snapshot}; 0 to {2**31 - 1} is allowed")
        batch = check_signatures(np.asarray(batch), self.settings)
        if not len(batch):
            return
        if self.snapshots and self.snapshots[-1][0] == snapshot:
            self.snapshots[-1] = (snapshot, self.snapshots[-1][1] + len(batch))
        else:
            self.snapshots.append((snapshot, len(batch)))
        self.documents += len(batch)
        self.waiting.append(batch.copy())
        self.waiting_bytes += batch.nbytes
        if self.waiting_bytes >= min(BUFFER, self.memory // 4):
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if not self.waiting:
            return
        rows = np.concatenate(self.waiting)
        self.waiting, self.waiting_bytes = [], 0
        step = max(1, self.memory // 4 // rows[0].nbytes)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            for band, values in enumerate([part, *keys_of(part, self.settings)], -1):
                with open(self.place(band), "ab") as file:
                    file.write(values.data)

    def settle(self) -> np.ndarray:
        """For each document the first document of its cluster: int64 [documents]; `levels` then says how it was found. Removes the folder.

        With several snapshots, clusters are first found within each; the first document of each goes on to the clusters of the whole
        crawl, and takes those with it that stand for it. `levels` is uint8 [documents]: 0 for a document that leads its cluster, 1 for one
        that follows another of its snapshot, 2 for one that follows one of another snapshot.
        """
        self.flush()
        self.settled = True
        try:
            many = len({snapshot for snapshot, _ in self.snapshots}) > 1
            numbers = np.repeat(*np.array(self.snapshots, np.int32).reshape(-1, 2).T) if many else None
            within = self.level(numbers, None)
            self.levels = np.where(within == np.arange(self.documents), 0, IN_SNAPSHOT).astype(np.uint8)
            if numbers is None:
                return within
            over_all = self.level(None, self.levels == 0)
            self.levels[(self.levels == 0) & (over_all != np.arange(self.documents))] = IN_CRAWL
            return over_all[within]
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def level(self, numbers: np.ndarray | None, taking_part: np.ndarray | None) -> np.ndarray:
        """The clusters among documents that take part and have the same number: for each the first one, int64 [documents]."""
        groups = OpenGroup(self.documents, self.settings)
        with Signatures(self.place(-1), self.documents, self.settings.bands * self.settings.rows) as signatures:
            for band in range(self.settings.bands if self.documents else 0):
                groups.start_band()
                for keys, documents, alone in self.sorted_records(band, numbers, taking_part):
                    groups.leave_out_joined(keys, documents, alone)
                    places = np.flatnonzero(~alone)
                    rows, rank = signatures.look_up(documents[places])
                    where = np.full(len(keys), -1, np.int64)
                    where[places] = rank
                    groups.take(band, keys, documents, where, rows)
        self.compared += groups.compared
        return groups.roots()

    def sorted_records(
        self, band: int, numbers: np.ndarray | None, taking_part: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The band's records by key, then document, in stretches: keys, documents, and whether the key is surely no other's."""
        from data_pipeline.web.duplicates.loops import mix_in

        runs: list[Path] = []
        size = min(max(1024, self.memory // 64), 1 << PLACE_BITS)  # documents whose keys and copies of them fit while they are sorted
        with contextlib.ExitStack() as cleanup, open(self.place(band), "rb") as file:
            for start in range(0, self.documents, size):
                keys = np.fromfile(file, np.uint64, size)
                stop = start + len(keys)
                if numbers is not None:
                    mix_in(keys, numbers[start:stop])
                runs.append(self.folder / f"run-{len(runs):05d}.bin")
                cleanup.callback(runs[-1].unlink, missing_ok=True)
                write_packed_run(runs[-1], keys, start, None if taking_part is None else taking_part[start:stop])
            stretch = max(256, self.memory // 2 // (4 * self.settings.bands * self.settings.rows))
            yield from merged(runs, stretch)


class Signatures:
    """The signature file, read in the order of its rows; mapped pages are given back, so that this process does not keep them."""

    def __init__(self, path: Path, documents: int, places: int) -> None:
        self.path, self.documents, self.places = path, documents, places

    def __enter__(self) -> "Signatures":
        self.map = None
        if self.documents:
            with open(self.path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self

    def __exit__(self, *_: object) -> None:
        if self.map is not None:
            self.map.close()

    def look_up(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The signatures of the documents, by rising document, uint32 [n, places], and for each document its row [n]."""
        order = np.argsort(documents, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        rows = np.empty((len(order), self.places), np.uint32)
        if self.map is None or not len(order):
            return rows, rank
        rising = documents[order]
        window = max(1, WINDOW // (4 * self.places))
        table = np.frombuffer(self.map, np.uint32).reshape(-1, self.places)
        bounds = np.searchsorted(rising, np.arange(0, self.documents + window, window))
        for start, stop in itertools.pairwise(bounds):
            if stop > start:
                np.take(table, rising[start:stop], axis=0, out=rows[start:stop])
                if hasattr(self.map, "madvise"):
                    self.map.madvise(mmap.MADV_DONTNEED)
        del table
        return rows, rank
