"""Histograms of a bounded relative error over any range: one pass, no range known before, a few kilobytes each.

Buckets grow by 1 %, as in DDSketch (Masson, Rim and Lee, VLDB 2019), so a quantile is within 1 % of the true one. Zero has its own bucket,
with what is smaller than 1e-9; negative numbers mirror positive ones.
"""

import numpy as np

GROWTH = 1.01
SMALLEST = 1e-9
BUCKETS = int(np.ceil(np.log(1e13 / SMALLEST) / np.log(GROWTH)))
SIZE = 2 * BUCKETS + 1  # negative, zero, positive


def buckets_of(values: np.ndarray) -> np.ndarray:
    """The bucket of each value: int64 [values]; values must not be NaN."""
    sizes = np.abs(values)
    with np.errstate(divide="ignore"):
        numbers = np.ceil(np.log(sizes / SMALLEST) / np.log(GROWTH))
    numbers = np.clip(np.where(sizes > SMALLEST, numbers, 0), 0, BUCKETS).astype(np.int64)
    return np.where(values < 0, BUCKETS - numbers, BUCKETS + numbers)


UP = SMALLEST * GROWTH ** np.arange(BUCKETS + 1)
CENTRES = np.concatenate([-np.sqrt(UP[1:] * UP[:-1])[::-1], [0.0], np.sqrt(UP[1:] * UP[:-1])])  # what stands for each bucket: [SIZE]
ENDS = np.concatenate([-UP[::-1], UP])  # where buckets begin and end: [SIZE + 1]


def quantile(counts: np.ndarray, share: float) -> float:
    """The value below which `share` of the counted ones lie; NaN where none was counted."""
    sums = np.cumsum(counts)
    if not len(sums) or not sums[-1]:
        return float("nan")
    return simplest(int(np.searchsorted(sums, share * (sums[-1] - 1), side="right")))


def simplest(bucket: int) -> float:
    """The number of fewest digits in a bucket: all its numbers are as good, and 0.9 reads better than 0.90375."""
    centre = float(CENTRES[bucket])
    for digits in range(1, 5):
        found = float(f"{centre:.{digits}g}")
        if int(buckets_of(np.array([found]))[0]) == bucket:
            return found
    return centre
