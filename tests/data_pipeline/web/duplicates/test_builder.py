"""Clusters from disk against all pairs in Python, with memory so small that runs are merged; snapshots; and the best of a cluster."""

import random
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.duplicates import ClusterBuilder, Duplicates, choose_representatives, cluster_sizes, clusters
from data_pipeline.web.duplicates.runs import merged, write_run

SMALL = Duplicates(bands=6, rows=2, threshold=0.5)
TINY = 1 << 16  # bytes: 1,024 records per run


def brute_force(signatures: np.ndarray, settings: Duplicates, numbers: list[int] | None = None) -> list[int]:
    """The definition, pair by pair: within each band's equal rows a document joins the first leader that is similar enough."""
    parent = list(range(len(signatures)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    for band in range(settings.bands):
        leaders: dict[tuple[int, ...], list[int]] = {}
        for place, row in enumerate(signatures):
            key = (*row[band * settings.rows : (band + 1) * settings.rows].tolist(), numbers[place] if numbers else 0)
            for leader in leaders.setdefault(key, []):
                if float((signatures[leader] == row).mean()) >= settings.threshold:
                    first, second = sorted((root(leader), root(place)))
                    parent[second] = first
                    break
            else:
                leaders[key].append(place)
    return [root(place) for place in range(len(signatures))]


def crowd(count: int, seed: int) -> np.ndarray:
    """Signatures of few different values: many bands agree by chance, many pairs lie on both sides of the threshold."""
    chance = np.random.default_rng(seed)
    rows = chance.integers(0, 12, (count, 12)).astype(np.uint32)
    copies = chance.integers(0, count, count // 3)
    rows[copies] = rows[chance.integers(0, count, len(copies))]
    change = chance.random(rows.shape) < 0.15
    return np.where(change, chance.integers(0, 12, rows.shape), rows).astype(np.uint32)


def built(folder: Path, signatures: np.ndarray, settings: Duplicates, sizes: list[int], memory: int, **more: list[int]) -> ClusterBuilder:
    builder, at = ClusterBuilder(folder, settings, memory), 0
    for size in sizes:
        snapshot = more["snapshots"][at] if "snapshots" in more else 0
        builder.add(signatures[at : at + size], snapshot)
        at += size
    assert at == len(signatures)
    return builder


def test_equal_to_all_pairs_in_memory_and_from_disk(tmp_path: Path) -> None:
    signatures = crowd(400, 1)
    expected = brute_force(signatures, SMALL)
    assert len(set(expected)) not in (1, 400)
    assert clusters(signatures, SMALL) == expected
    cut_off = built(tmp_path / "clusters", signatures[::-1], SMALL, [400], TINY)
    cut_off.flush()  # what it left is cleared away by the next one
    for sizes in ([400], [1] * 400, [137, 0, 200, 63]):
        found = built(tmp_path / "clusters", signatures, SMALL, sizes, TINY).settle()
        assert found.dtype == np.int64
        assert found.tolist() == expected
        assert not (tmp_path / "clusters").exists()
    strict = SMALL.model_copy(update={"threshold": 0.75})
    assert clusters(signatures, strict) == brute_force(signatures, strict) != expected  # the threshold matters
    assert clusters(signatures, SMALL.model_copy(update={"rows": 3, "bands": 4})) != expected  # and so do the bands


def test_merged_runs_and_heavy_groups(tmp_path: Path) -> None:
    """5,000 documents in five runs per band; one band of a tenth of them is equal, so a group is longer than a stretch."""
    signatures = np.random.default_rng(2).integers(0, 3000, (5000, 12)).astype(np.uint32)
    signatures[np.random.default_rng(3).integers(0, 5000, 600)] = signatures[7]
    signatures[::10, 2:4] = 5
    settings = SMALL.model_copy(update={"leaders": 10_000})
    expected = brute_force(signatures, settings)
    for memory, size in ((TINY, 700), (TINY, 5000), (1 << 28, 333)):
        sizes = [size] * (5000 // size) + ([5000 % size] if 5000 % size else [])
        assert built(tmp_path / "c", signatures, settings, sizes, memory).settle().tolist() == expected


def test_many_unlike_pages_of_one_band_cost_no_pairs(tmp_path: Path) -> None:
    """Every page shares a band with every other. Comparisons stay below documents x leaders; a copy is found by its other bands."""
    signatures = np.random.default_rng(4).integers(0, 2**31, (3000, 12)).astype(np.uint32)
    signatures[:, :2] = 1
    signatures[2999] = signatures[2500]
    settings = SMALL.model_copy(update={"leaders": 16})
    builder = built(tmp_path / "c", signatures, settings, [3000], 1 << 24)
    assert builder.settle().tolist() == [*range(2999), 2500]
    assert builder.compared <= 3000 * 16 + 5
    equal = built(tmp_path / "c", np.ones((3000, 12), np.uint32), settings, [3000], 1 << 24)
    assert not equal.settle().any()
    assert equal.compared == 2999 * 6  # one comparison per document and band


def test_snapshots_first_then_the_crawl(tmp_path: Path) -> None:
    signatures, chance = crowd(300, 5), random.Random(5)
    numbers = [chance.randrange(3) for _ in range(300)]
    within = brute_force(signatures, SMALL, numbers)
    firsts = [place for place in range(300) if within[place] == place]
    over_all = dict(zip(firsts, (firsts[one] for one in brute_force(signatures[firsts], SMALL)), strict=True))
    builder = built(tmp_path / "c", signatures, SMALL, [1] * 300, TINY, snapshots=numbers)
    assert builder.settle().tolist() == [over_all[one] for one in within]
    levels = [1 if within[place] != place else 2 if over_all[place] != place else 0 for place in range(300)]
    assert builder.levels.tolist() == levels
    assert {0, 1, 2} == set(levels)
    one = built(tmp_path / "c", signatures, SMALL, [300], TINY)
    assert one.settle().tolist() == brute_force(signatures, SMALL)  # without snapshots there is one level
    assert set(one.levels.tolist()) == {0, 1}


def test_merging_keeps_the_order_of_numbers(tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    keys = np.sort(chance.integers(0, 40, 500)).astype(np.uint64)
    chance.shuffle(keys)
    for run, start in enumerate(range(0, 500, 90)):
        write_run(tmp_path / f"{run}", keys[start : start + 90], np.arange(start, min(start + 90, 500)))
    stretches = list(merged([tmp_path / f"{run}" for run in range(6)], 64))
    assert len(stretches) > 5
    assert np.concatenate([numbers for _, numbers, _ in stretches]).tolist() == np.argsort(keys, kind="stable").tolist()
    marked = np.concatenate([keys[alone] for keys, _, alone in stretches])
    assert all((keys == one).sum() == 1 for one in marked)


def test_the_best_then_the_longest_then_the_first_is_kept() -> None:
    leaders = np.array([0, 1, 0, 1, 0, 5, 1])
    quality = np.array([0.1, 0.5, 0.9, 0.5, 0.9, np.nan, 0.5])
    assert choose_representatives(leaders, quality).tolist() == [2, 1, 2, 1, 2, 5, 1]
    assert choose_representatives(leaders, quality, np.array([9, 3, 1, 7, 2, 0, 7])).tolist() == [4, 3, 4, 3, 4, 5, 3]
    assert cluster_sizes(leaders).tolist() == [3, 3, 3, 3, 3, 1, 3]
    assert choose_representatives(np.empty(0, np.int64), np.empty(0)).tolist() == cluster_sizes(np.empty(0, np.int64)).tolist() == []
    with pytest.raises(InputError, match="one quality and length per document"):
        choose_representatives(leaders, quality[:-1])


def test_an_empty_crawl_and_wrong_calls(tmp_path: Path) -> None:
    builder = ClusterBuilder(tmp_path / "c", SMALL)
    assert builder.settle().tolist() == []
    with pytest.raises(InputError, match="already settled"):
        builder.add(np.zeros((1, 12), np.uint32))
    with pytest.raises(InputError, match="bytes of memory"):
        ClusterBuilder(tmp_path / "c", SMALL, 10)
    with pytest.raises(InputError, match="snapshot -1"):
        ClusterBuilder(tmp_path / "c", SMALL).add(np.zeros((1, 12), np.uint32), -1)
