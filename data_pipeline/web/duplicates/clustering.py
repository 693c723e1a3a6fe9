"""Clusters of near duplicates of signatures in memory, and exact duplicates. `builder.py` does the same from disk.

Documents that agree in a whole band are candidates. Within a band's group, in the order of the documents, a document joins the first
leader that it is similar to, and leads itself otherwise; a cluster is what is joined over all bands. So a group of many copies costs one
comparison each, and not one per pair. A group remembers `settings.leaders` leaders at most: in a band that very many unlike pages share,
later pages are compared with the first of them only, and similar ones among them meet in another band.
"""

from collections.abc import Sequence

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.web.duplicates.recipe import Duplicates
from data_pipeline.web.duplicates.signatures import needed_places


class OpenGroup:
    """The union-find forest of all documents, and the band group that the next stretch of records may go on with."""

    def __init__(self, documents: int, settings: Duplicates) -> None:
        self.settings = settings
        self.needed = needed_places(settings)
        self.parent = np.arange(documents, dtype=np.int64)
        self.key = np.zeros(1, np.uint64)
        self.count = np.full(1, -1, np.int64)
        self.leaders = np.zeros(settings.leaders, np.int64)
        self.leader_rows = np.zeros((settings.leaders, settings.bands * settings.rows), np.uint32)
        self.compared = 0

    def start_band(self) -> None:
        self.count[0] = -1

    def take(self, band: int, keys: np.ndarray, documents: np.ndarray, where: np.ndarray, rows: np.ndarray) -> None:
        """Records of one band by rising key, then document; rows[where[i]] is the signature of record i, where[i] < 0 stands alone."""
        from data_pipeline.web.duplicates.loops import join_groups

        start = band * self.settings.rows
        groups = (self.key, self.count, self.leaders, self.leader_rows)
        stop = start + self.settings.rows
        self.compared += int(join_groups(keys, documents, where, rows, start, stop, self.needed, self.parent, *groups))

    def leave_out_joined(self, keys: np.ndarray, documents: np.ndarray, alone: np.ndarray) -> None:
        """Marks records as alone whose whole group is one cluster already."""
        from data_pipeline.web.duplicates.loops import leave_out_joined

        leave_out_joined(keys, documents, self.parent, alone)

    def roots(self) -> np.ndarray:
        """For each document the first of its cluster: int64 [documents]."""
        from data_pipeline.web.duplicates.loops import flatten

        flatten(self.parent)
        return self.parent


def together(keys: np.ndarray) -> np.ndarray:
    """Which of the sorted keys stand beside an equal one: bool [n]."""
    same = np.zeros(len(keys), bool)
    equal = keys[1:] == keys[:-1]
    same[1:] |= equal
    same[:-1] |= equal
    return same


def check_signatures(signatures: np.ndarray, settings: Duplicates) -> np.ndarray:
    """The signatures as contiguous uint32 [documents, bands * rows]; an InputError where they are none."""
    places = settings.bands * settings.rows
    if signatures.ndim != 2 or signatures.shape[1] != places or signatures.dtype != np.uint32:
        shape = "x".join(map(str, signatures.shape))
        raise InputError(
            f"signatures: uint32 [documents, {places}] is needed for {settings.bands} bands of {settings.rows}, not "
            f"{signatures.dtype} [{shape}]"
        )
    return np.ascontiguousarray(signatures)


def keys_of(signatures: np.ndarray, settings: Duplicates) -> np.ndarray:
    """64 bits of each band of each document: uint64 [bands, documents]."""
    from data_pipeline.web.duplicates.loops import band_keys

    keys = np.empty((settings.bands, len(signatures)), np.uint64)
    band_keys(signatures, settings.bands, settings.rows, keys)
    return keys


def clusters(signatures: np.ndarray, settings: Duplicates) -> list[int]:
    """For each document the first document of its cluster; `signatures` is uint32 [documents, bands * rows]."""
    signatures = check_signatures(signatures, settings)
    groups = OpenGroup(len(signatures), settings)
    for band, keys in enumerate(keys_of(signatures, settings)):
        order = np.argsort(keys, kind="stable")
        sorted_keys = keys[order]
        kept = together(sorted_keys)
        documents = order[kept]
        groups.start_band()
        groups.take(band, sorted_keys[kept], documents, documents, signatures)
    return groups.roots().tolist()


def exact_originals(keys: Sequence[bytes]) -> list[int]:
    """For each document the first one with the same text."""
    first: dict[bytes, int] = {}
    return [first.setdefault(key, place) for place, key in enumerate(keys)]


def exact_originals_of(keys: np.ndarray) -> np.ndarray:
    """The same for many documents: keys are uint8 [documents, 16], originals int64 [documents]; 40 bytes per document are needed."""
    halves = np.ascontiguousarray(keys, np.uint8).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 0], halves[:, 1]))  # stable: equal keys by document
    first = np.ones(len(order), bool)
    first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    originals = np.empty(len(order), np.int64)
    originals[order] = order[first][np.cumsum(first) - 1]
    return originals
