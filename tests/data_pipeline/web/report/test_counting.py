"""Sketches, tallies and bars: what a pass over a ledger keeps, against what numpy says of all values at once."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.web.report import sketch, tally
from data_pipeline.web.report.histograms import Threshold, histogram


@pytest.mark.parametrize("seed", [0, 1])
def test_quantiles_are_within_a_percent_over_any_range(seed: int) -> None:
    chance = np.random.default_rng(seed)
    for values in (
        chance.lognormal(8, 3, 5000),
        chance.beta(1, 9, 5000),
        chance.normal(0, 5, 5000),
        chance.integers(0, 9, 5000).astype(float),
    ):
        counts = np.bincount(sketch.buckets_of(values), minlength=sketch.SIZE)
        for share in (0.01, 0.3, 0.5, 0.95):
            exact = float(np.quantile(values, share, method="lower"))
            assert sketch.quantile(counts, share) == pytest.approx(exact, rel=0.0101, abs=2e-9)


def test_whole_numbers_and_short_decimals_come_back_as_they_are() -> None:
    for value in (0.0, 1.0, 3.0, 50.0, 0.9, 0.15, 1e5, -2.5):
        counts = np.bincount(sketch.buckets_of(np.array([value])), minlength=sketch.SIZE)
        assert sketch.quantile(counts, 0.5) == value
    assert np.isnan(sketch.quantile(np.zeros(sketch.SIZE, np.int64), 0.5))


def test_a_tally_gives_the_sums_of_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "PENDING", 40)  # partial sums are joined many times
    chance = np.random.default_rng(3)
    sums, documents = Counter[str](), Counter[str]()
    found = tally.Tally("domain", ("documents", "bytes"))
    for _ in range(30):
        names = [f"site{one}" for one in chance.zipf(1.6, 50) % 97]
        sizes = chance.integers(0, 1000, 50)
        found.add(pa.array(names), {"documents": np.ones(50, np.int64), "bytes": sizes})
        documents.update(names)
        for name, size in zip(names, sizes.tolist(), strict=True):
            sums[name] += size
    rows = found.table().to_pylist()
    assert {row["domain"]: (row["documents"], row["bytes"]) for row in rows} == {name: (documents[name], sums[name]) for name in documents}
    assert [(-row["documents"], row["domain"]) for row in rows] == sorted((-row["documents"], row["domain"]) for row in rows)


@pytest.mark.parametrize("whole", [False, True])
def test_bars_count_every_page_once_and_show_the_threshold(whole: bool) -> None:
    chance = np.random.default_rng(5)
    values = chance.poisson(4, 3000).astype(float) if whole else chance.beta(2, 5, 3000)
    counts = np.zeros((3, sketch.SIZE), np.int64)
    counts[0] = np.bincount(sketch.buckets_of(values), minlength=sketch.SIZE)
    found = histogram("made", counts, whole, [Threshold(30.0 if whole else 1.0, "at most")])
    assert found is not None
    assert found.counts.sum() == 3000
    assert found.edges[0] <= values.min()
    assert found.edges[-1] >= (30 if whole else 1)
    exact = np.histogram(values, found.edges)[0]
    room = 0 if whole else 0.02 * len(values)  # a bucket may lie across an edge
    assert np.abs(found.counts[0] - exact).max() <= room
