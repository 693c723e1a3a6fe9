"""How many pages of a whole crawl are left without duplicates, from a sample of it: bounds, since a sample hides most copies.

Of a page with s copies in the crawl a sample of share f holds Binomial(s, f). The sample shows how many clusters have 1, 2, 3, ... pages.
Any law of cluster sizes that gives such counts may be the crawl's, so the share of pages that stay is told as the least and the greatest
over all these laws: two linear programs (nonparametric bounds on the number of unseen classes, as in Mao and Lindsay, Annals of Statistics
35, 2007). Copies are taken to lie anywhere in the crawl; where they lie together, in one file, the truth is nearer to the sample.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
GRID = 1.12  # ratio of neighbouring cluster sizes
SINGLE = 12  # cluster sizes up to this one all stand on the grid
SOLVED = 1e-6  # how exactly the programs are solved
RATES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Multiplicities:
    """Clusters of the sample by their pages: int64 [different sizes] both; pages alone are clusters of one."""

    sizes: np.ndarray
    clusters: np.ndarray

    @property
    def pages(self) -> float:
        return float((self.sizes * self.clusters).sum())

    def stay(self, rate: float = 1.0) -> float:
        """The share of pages that stay when each page of the sample is taken with probability `rate`: the expectation, exactly."""
        if rate == 1:
            return float(self.clusters.sum() / self.pages)
        return float((self.clusters * -np.expm1(self.sizes * np.log1p(-rate))).sum() / (rate * self.pages))


def whole_crawl(found: Multiplicities, share: float) -> dict[str, Any] | None:
    """The share of pages that stay in the whole crawl, of which the sample is `share`; None where no page passed the rules.

    `low` and `high` bound it at 95 %; `resampled` is the share at smaller samples of this sample; `power_law` goes on from the last two of
    them as a power of the size, which is no bound.
    """
    if not found.pages:
        return None
    resampled = [{"rate": rate, "stay": round(found.stay(rate), 6)} for rate in RATES]
    seen = found.stay()
    if share >= 1:
        return {"sample": seen, "low": seen, "high": seen, "power_law": seen, "resampled": resampled}
    low, high = bounds(found, share)
    slope = np.log2(found.stay() / found.stay(0.5))
    return {
        "sample": seen,
        "low": min(low, seen),
        "high": min(high, seen),
        "power_law": float(seen * (1 / share) ** slope),
        "resampled": resampled,
    }


def bounds(found: Multiplicities, share: float) -> tuple[float, float]:
    """The least and the greatest share of staying pages over all laws of cluster sizes that the sample allows."""
    from scipy.optimize import linprog

    top = int(found.sizes.max())
    edges = bins(top)
    sizes = grid(top, share)
    expected = found.pages * occupancy(sizes, edges, share) / (sizes * share)  # clusters per bin if all pages were in clusters of a size
    observed = np.array([found.clusters[(found.sizes >= low) & (found.sizes < high)].sum() for low, high in edges], float)
    confidence = CONFIDENCE
    for _ in range(6):
        least, most = poisson_bounds(observed, confidence)
        scale = np.sqrt(most)[:, None]  # rows of one size are easier to solve
        sides = {"A_ub": np.vstack([expected / scale, -expected / scale]), "b_ub": np.concatenate([most, -least]) / np.tile(scale[:, 0], 2)}
        whole = {"A_eq": np.ones((1, len(sizes))), "b_eq": [1.0]}
        answers = [linprog(sign / sizes, bounds=(0, 1), method="highs", **sides, **whole) for sign in (1.0, -1.0)]
        if all(answer.status == 0 for answer in answers):
            return float(answers[0].fun) * (1 - SOLVED), min(float(-answers[1].fun) * (1 + SOLVED), 1.0)
        confidence = 1 - (1 - confidence) / 50  # no law on the grid is that near: the counts may vary more
    return 0.0, 1.0


def bins(top: int) -> list[tuple[int, float]]:
    """Numbers of pages that are counted together, (first, behind the last): 1, 2, 3, 4, 5 to 8, ...; the last one is open."""
    found: list[tuple[int, float]] = [(1, 2), (2, 3), (3, 4), (4, 5)]
    while found[-1][1] <= top:
        start = int(found[-1][1])
        found.append((start, start + (start - 1)))
    return [*found, (int(found[-1][1]), np.inf)]


def grid(top: int, share: float) -> np.ndarray:
    """Cluster sizes of the whole crawl: up to a few times what the largest of the sample would be."""
    last = max(4.0 * (top + 3) / share, SINGLE * 2)
    steps = int(np.ceil(np.log(last / SINGLE) / np.log(GRID)))
    return np.concatenate([np.arange(1.0, SINGLE), np.unique(np.round(SINGLE * GRID ** np.arange(steps + 1)))])


def occupancy(sizes: np.ndarray, edges: list[tuple[int, float]], share: float) -> np.ndarray:
    """The probability that a cluster of the crawl has so many pages in the sample: float64 [bins, sizes]."""
    from scipy.stats import binom

    below = [binom.cdf(low - 1, sizes, share) for low, _ in edges] + [np.ones(len(sizes))]
    first = np.diff(below, axis=0)
    first[0] = binom.pmf(1, sizes, share)  # not as a difference of two numbers near one
    return first


def poisson_bounds(observed: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact intervals of the expectations behind counts (Garwood, 1936), all of them at once at this confidence (Bonferroni)."""
    from scipy.stats import chi2

    tail = (1 - confidence) / 2 / len(observed)
    least = np.where(observed > 0, chi2.ppf(tail, 2 * np.maximum(observed, 1)) / 2, 0)
    return least, chi2.ppf(1 - tail, 2 * observed + 2) / 2
