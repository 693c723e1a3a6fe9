"""Standard errors and confidence intervals of scores."""

import math
from collections.abc import Sequence

from scipy.stats import beta, binomtest, norm


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, summed without rounding drift."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """Of a mean over items: the sample standard deviation over the square root of the number of items; 0 for a single item."""
    n = len(values)
    if n < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)


def ratio_standard_error(tops: Sequence[float], bottoms: Sequence[float]) -> float:
    """Of sum(tops) / sum(bottoms) over independent pairs, by the delta method (Cochran, Sampling Techniques, 1977, section 2.11)."""
    n, whole = len(tops), math.fsum(bottoms)
    if n < 2:
        return 0.0
    ratio = math.fsum(tops) / whole
    return math.sqrt(n / (n - 1) * math.fsum((top - ratio * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))) / whole


def wilson(successes: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, 1927); sound near 0 and 1, unlike mean plus or minus two standard errors."""
    z = float(norm.ppf((1 + confidence) / 2))
    share, spread = successes / items, z * z / items
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def clopper_pearson(successes: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson, 1934), from quantiles of the beta distribution."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, items - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, items - successes)) if successes < items else 1.0
    return low, high


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact two-sided p-value that gains and losses are equally likely (McNemar, 1947): a binomial test on the items that changed."""
    changed = gained + lost
    return float(binomtest(gained, changed, 0.5).pvalue) if changed else 1.0


def paired_difference(gained: int, lost: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval of the difference of two proportions measured on the same items, (gained - lost) / items.

    Exact for how the items that changed split into gains and losses, given how many changed: Clopper-Pearson on that split. Where no item
    changed, plus or minus the Clopper-Pearson bound on the share of items that change.
    """
    changed = gained + lost
    if changed == 0:
        bound = clopper_pearson(0, items, confidence)[1]
        return -bound, bound
    low, high = clopper_pearson(gained, changed, confidence)
    return (2 * low - 1) * changed / items, (2 * high - 1) * changed / items
