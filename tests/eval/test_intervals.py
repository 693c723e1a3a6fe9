"""Intervals against closed forms and tables."""

import math
from math import comb

import pytest

from eval.intervals import clopper_pearson, mcnemar_p, paired_difference, ratio_standard_error, standard_error, wilson


def tail(successes: int, items: int, p: float) -> float:
    """P(at least `successes` of `items`)."""
    return sum(comb(items, k) * p**k * (1 - p) ** (items - k) for k in range(successes, items + 1))


def test_standard_error_of_a_proportion() -> None:
    # sqrt(p (1 - p) / (n - 1)) for zeros and ones.
    assert standard_error([1.0] * 30 + [0.0] * 70) == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert standard_error([1.0]) == 0.0


def test_wilson_solves_its_equation() -> None:
    z = 1.959963984540054
    for successes, items in ((0, 10), (3, 10), (10, 10), (331, 1350)):
        for end in wilson(successes, items):
            assert (successes / items - end) ** 2 == pytest.approx(z * z * end * (1 - end) / items, abs=1e-12)


@pytest.mark.parametrize(("successes", "items"), [(1, 10), (5, 12), (11, 12), (60, 131)])
def test_clopper_pearson_has_tails_of_half_the_error(successes: int, items: int) -> None:
    low, high = clopper_pearson(successes, items)
    assert tail(successes, items, low) == pytest.approx(0.025, rel=1e-6)
    assert 1 - tail(successes + 1, items, high) == pytest.approx(0.025, rel=1e-6)


def test_clopper_pearson_at_the_ends() -> None:
    assert clopper_pearson(0, 100) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert clopper_pearson(100, 100) == (pytest.approx(0.025 ** (1 / 100)), 1.0)


def test_mcnemar_is_a_binomial_test() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(1, 9) == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert mcnemar_p(4, 4) == 1.0


def test_paired_difference_covers_what_it_should() -> None:
    low, high = paired_difference(12, 10, 1350)
    assert low < 2 / 1350 < high
    share_low, share_high = clopper_pearson(12, 22)
    assert (low, high) == (pytest.approx((2 * share_low - 1) * 22 / 1350), pytest.approx((2 * share_high - 1) * 22 / 1350))
    none = paired_difference(0, 0, 1350)
    assert none == (-none[1], pytest.approx(1 - 0.025 ** (1 / 1350)))
    # Twenty losses and no gain are no accident: the interval lies below zero.
    assert paired_difference(0, 20, 1350)[1] < 0


def test_ratio_standard_error_is_that_of_a_mean_where_all_weigh_alike() -> None:
    values = [1.0, 4.0, 2.0, 7.0]
    assert ratio_standard_error(values, [2.0] * 4) == pytest.approx(standard_error(values) / 2)
