"""Which document of a cluster is kept: the best, then the longest, then the first. A cluster's id is its first document."""

import numpy as np

from data_pipeline.errors import InputError


def choose_representatives(leaders: np.ndarray, order_keys: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """For each document the one of its cluster that is kept: int64 [documents].

    `leaders` [documents] is the first document of each one's cluster; `order_keys` [documents] is its quality, higher is better (nan counts
    as the lowest); `lengths` [documents] breaks ties, the longer text first; then the earlier place wins.
    """
    leaders = np.asarray(leaders, np.int64)
    quality = np.asarray(order_keys, np.float64)
    size = np.zeros(len(leaders)) if lengths is None else np.asarray(lengths)
    if not (len(leaders) == len(quality) == len(size)):
        raise InputError(f"clusters: one quality and length per document are needed: {len(leaders)}, {len(quality)}, {len(size)} came")
    quality = np.where(np.isnan(quality), -np.inf, quality)
    if not len(leaders):
        return leaders.copy()
    order = np.lexsort((np.arange(len(leaders)), -size.astype(np.float64), -quality, leaders))
    first = np.ones(len(order), bool)
    first[1:] = leaders[order[1:]] != leaders[order[:-1]]
    best = np.full(len(leaders), -1, np.int64)
    best[leaders[order[first]]] = order[first]
    return best[leaders]


def cluster_sizes(leaders: np.ndarray) -> np.ndarray:
    """How many documents each one's cluster has: int64 [documents]."""
    leaders = np.asarray(leaders, np.int64)
    return np.bincount(leaders, minlength=len(leaders))[leaders].astype(np.int64) if len(leaders) else leaders.copy()
