"""Forecasts of a known whole: how often the intervals hold the truth, and what would make them fail."""

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.web.report.duplicates_of_whole import Multiplicities, bounds, occupancy, whole_crawl
from data_pipeline.web.report.forecast import COLUMNS, FILES, GROUPS, Sample, forecast, ratio_interval, sample_of
from data_pipeline.web.report.options import ReportOptions


def crawl_of_files(files: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pages per file and kept bytes per file; a file's share of good pages and their length differ from file to file."""
    chance = np.random.default_rng(seed)
    pages = chance.poisson(200 * np.exp(chance.normal(0, 0.3, files))) + 1.0
    return pages, pages * chance.beta(4, 6, files) * np.exp(chance.normal(8, 0.3, files))


def test_the_interval_holds_the_truth_in_about_95_of_100_samples() -> None:
    pages, kept = crawl_of_files(30_000, 1)
    truth = kept.sum() / pages.sum()
    chance = np.random.default_rng(2)
    held = narrow = 0
    for number in range(120):
        files = chance.choice(len(pages), 30, replace=False)  # 0.1 % of the crawl
        _, low, high = ratio_interval(kept[files], pages[files], 0.001, 400, number)
        held += low <= truth <= high
        # What taking pages for independent would give: files differ, so it is far too narrow.
        spread = np.sqrt(kept[files].sum() * 4000) / pages[files].sum()
        narrow += abs(kept[files].sum() / pages[files].sum() - truth) <= 1.96 * spread
    assert 107 <= held <= 120  # 114 are expected; fewer than 107 has a probability of 0.3 % at 95 %
    assert narrow < 100


def test_interval_of_the_whole_and_of_too_little() -> None:
    pages, kept = crawl_of_files(40, 3)
    ratio, low, high = ratio_interval(kept, pages, 1.0, 200, 0)
    assert low == high == pytest.approx(ratio)  # nothing is left to chance
    assert ratio_interval(kept[:1], pages[:1], 0.001, 200, 0)[1:] == (0.0, float("inf"))
    assert ratio_interval(pages * 2, pages, 0.001, 200, 0) == (2.0, 2.0, 2.0)
    # Against the standard error of a mean, which a ratio with equal bottoms is.
    equal = np.ones(400)
    tops = np.random.default_rng(4).normal(5, 1, 400)
    _, low, high = ratio_interval(tops, equal, 0.0, 4000, 0)
    assert (high - low) / 2 == pytest.approx(1.966 * tops.std(ddof=1) / 20, rel=0.05)


def sizes_of(law: str, pages: int, chance: np.random.Generator) -> np.ndarray:
    """Cluster sizes of a crawl of about so many pages."""
    if law == "alone":
        return np.ones(pages, np.int64)
    if law == "ten of each":
        return np.full(pages // 10, 10)
    sizes = np.minimum(np.floor(chance.pareto(1.3, pages) + 1), pages // 20).astype(np.int64)
    return sizes[: np.searchsorted(np.cumsum(sizes), pages) + 1]


@pytest.mark.parametrize("law", ["alone", "ten of each", "power law"])
def test_the_range_holds_what_duplicates_leave_of_the_whole(law: str) -> None:
    chance = np.random.default_rng(6)
    held = naive = 0
    for _ in range(12):
        sizes = sizes_of(law, 400_000, chance)
        truth = len(sizes) / sizes.sum()
        in_sample = chance.binomial(sizes, 0.01)
        found = whole_crawl(Multiplicities(*np.unique(in_sample[in_sample > 0], return_counts=True)), 0.01)
        assert found is not None
        held += found["low"] <= truth <= found["high"]
        naive += abs(found["sample"] - truth) < 0.05
    assert held >= 11
    assert (naive == 12) == (law == "alone")  # taking the sample's share for the crawl's is wrong as soon as there are copies


def test_a_sample_that_is_nearly_everything_leaves_little_open() -> None:
    chance = np.random.default_rng(7)
    sizes = sizes_of("power law", 100_000, chance)
    in_sample = chance.binomial(sizes, 0.9)
    low, high = bounds(Multiplicities(*np.unique(in_sample[in_sample > 0], return_counts=True)), 0.9)
    assert low <= len(sizes) / sizes.sum() <= high
    assert high - low < 0.03


def test_occupancy_and_smaller_samples_are_the_binomial_law() -> None:
    law = occupancy(np.array([1.0, 5.0]), [(1, 2), (2, 3), (3, np.inf)], 0.3)
    assert law[:, 0].tolist() == pytest.approx([0.3, 0, 0])
    assert law[:, 1].tolist() == pytest.approx([5 * 0.3 * 0.7**4, 10 * 0.09 * 0.7**3, 1 - 0.7**5 - 5 * 0.3 * 0.7**4 - 10 * 0.09 * 0.7**3])
    found = Multiplicities(np.array([1, 4]), np.array([6, 10]))
    assert found.stay() == pytest.approx(16 / 46)
    assert found.stay(0.5) == pytest.approx((6 * 0.5 + 10 * (1 - 0.5**4)) / 23)


def sample(pages: np.ndarray, kept: np.ndarray) -> Sample:
    return Sample("file", {name: kept if name.endswith("text_bytes") else pages for name in COLUMNS})


def test_the_size_of_the_crawl_in_pages_bytes_or_as_a_share_is_the_same_forecast() -> None:
    pages, kept = crawl_of_files(50, 8)
    whole = round(pages.sum() * 100)
    alone = Multiplicities(np.array([1]), np.array([int(pages.sum())]))
    told = [
        forecast(sample(pages, kept), alone, ReportOptions(resamples=200, **size), 4.0)
        for size in ({"crawl_pages": whole}, {"crawl_bytes": whole}, {"sample_share": 0.01})
    ]
    assert all(one is not None for one in told)
    assert told[0]["figures"] == told[1]["figures"] == told[2]["figures"]
    assert [one["assumed"] for one in told] == [False, False, True]
    tokens = told[0]["figures"]["kept_tokens"]
    assert tokens["value"] == pytest.approx(kept.sum() * 100 / 4)
    assert tokens["corrected_low"] <= tokens["low"] < tokens["value"] < tokens["high"] == pytest.approx(tokens["corrected_high"])
    half = Sample("file", sample(pages, kept).sums | {"kept": pages * (np.arange(50) < 2)})
    few = forecast(half, alone, ReportOptions(resamples=200), 4.0)
    assert few is not None
    assert few["figures"]["kept_documents"]["high"] <= few["whole_pages"]  # no more pages are kept than there are
    assert forecast(sample(pages[:0], kept[:0]), alone, ReportOptions(), 4.0) is None


def test_files_are_resampled_where_there_are_many_else_domains_in_groups() -> None:
    def table(key: str, rows: int) -> pa.Table:
        return pa.table({key: [f"{key}{row}" for row in range(rows)], **{name: np.arange(rows) for name in COLUMNS}})

    many, few = table("file", FILES), table("file", FILES - 1)
    assert sample_of(many, table("domain", 50), 0).unit == "file"
    assert (sample_of(few, table("domain", 50), 0).unit, sample_of(few, table("domain", 50), 0).units) == ("domain", 50)
    grouped = sample_of(few, table("domain", GROUPS * 2), 0)
    assert (grouped.unit, grouped.units) == ("group of domains", GROUPS)
    assert grouped.total("kept") == sum(range(GROUPS * 2))
