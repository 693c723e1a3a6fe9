"""Metrics against scikit-learn, scipy and counts by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score, roc_auc_score

from data_pipeline.quality.metrics import (
    best_threshold,
    decision,
    kappa,
    kinds_measured,
    over_thresholds,
    ranking_area,
    spearman,
    wilson,
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    values = chance.random(200).round(2) * 5
    return values, chance.random(200) * 5 < values


def test_decisions_at_every_threshold(scored: tuple[np.ndarray, np.ndarray]) -> None:
    values, good = scored
    curve = over_thresholds(values, good)
    for place in range(0, len(curve["threshold"]), 17):
        kept = values >= curve["threshold"][place]
        found = decision(kept, good)
        assert found["f1"] == pytest.approx(f1_score(good, kept)) == curve["f1"][place]
        assert found["precision"] == pytest.approx(precision_score(good, kept)) == curve["precision"][place]
        assert found["recall"] == pytest.approx(recall_score(good, kept)) == curve["recall"][place]
    best = decision(values >= best_threshold(values, good), good)["f1"]
    assert best == pytest.approx(max(curve["f1"]))
    assert ranking_area(values, good) == pytest.approx(roc_auc_score(good, values))


def test_agreement() -> None:
    chance = np.random.default_rng(1)
    one = chance.integers(0, 6, 300)
    other = np.clip(one + chance.integers(-1, 2, 300), 0, 5)
    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert kappa(one, other, weighted=True) == pytest.approx(cohen_kappa_score(one, other, weights="quadratic"))
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert kappa(one, one) == 1
    assert kappa(np.zeros(4, int), np.zeros(4, int)) == 1
    assert spearman(np.zeros(4), one[:4]) == 0


def test_wilson() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_kinds() -> None:
    found = kinds_measured(["a", "a", "b", "x"], ["a", "b", "b", "a"], ("a", "b"))
    assert found["table"] == [[1, 1], [0, 1]]
    assert found["documents"] == 3  # x is no kind of the model
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["mean_f1"] == pytest.approx(2 / 3)
