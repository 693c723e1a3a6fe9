"""The sample: stratified, by turns of sites, a function of documents and seed."""

import random
from collections import Counter

from data_pipeline.quality.sampling import Candidate, draw, is_chosen


def candidates() -> list[Candidate]:
    """900 short pages of one large site, 60 of twenty small ones, 40 long ones, ten with a high first score."""
    large = [Candidate(f"large-{number}", "large.example", 300, 0) for number in range(900)]
    small = [Candidate(f"small-{number}", f"s{number % 20}.example", 300, 0) for number in range(60)]
    long = [Candidate(f"long-{number}", f"s{number % 20}.example", 9_000, 0) for number in range(40)]
    return large + small + long + [Candidate(f"good-{number}", "good.example", 300, 5) for number in range(10)]


def test_strata_and_sites_are_drawn_alike() -> None:
    drawn = draw(candidates(), 90, seed=1)
    assert Counter(one.stratum for one in drawn) == {(0, 0): 40, (3, 0): 40, (0, 5): 10}
    ids = [one.id for one in drawn if one.stratum == (0, 0)]
    assert sum(one.startswith("large") for one in ids) == 2  # 21 sites take turns: 2 of the large one, 38 of the others
    assert {one.stratum: round(one.stands_for, 6) for one in drawn} == {(0, 0): 24.0, (3, 0): 1.0, (0, 5): 1.0}


def test_the_order_does_not_matter_and_the_seed_does() -> None:
    shuffled = candidates()
    random.Random(3).shuffle(shuffled)
    assert draw(shuffled, 50, seed=1) == draw(candidates(), 50, seed=1)
    assert draw(candidates(), 50, seed=2) != draw(candidates(), 50, seed=1)


def test_all_where_there_are_fewer() -> None:
    assert len(draw(candidates(), 5_000, seed=0)) == len(candidates())
    assert draw([], 10, seed=0) == []


def test_a_share_of_all() -> None:
    assert 230 < sum(is_chosen(0, str(number), 0.25) for number in range(1_000)) < 270
