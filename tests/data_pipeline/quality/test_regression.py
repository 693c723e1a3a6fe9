"""The fit against finite differences, scikit-learn, and what theory says of it."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from data_pipeline.quality.regression import all_threshold_loss, fit, minimise


def problem(seed: int = 0, documents: int = 120, columns: int = 30) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Sparse rows and scores from 0 to 5 that a hidden weight vector decides, with noise."""
    chance = np.random.default_rng(seed)
    rows = sparse.csr_matrix(sparse.random(documents, columns, 0.3, random_state=chance))
    hidden = rows @ chance.normal(size=columns) + 0.3 * chance.normal(size=documents)
    return rows, np.digitize(hidden, np.quantile(hidden, [0.3, 0.5, 0.7, 0.8, 0.9]))


def reached(scores: np.ndarray) -> np.ndarray:
    return (scores[:, None] >= np.arange(1, 6)).astype(float)


def test_slope_against_finite_differences() -> None:
    rows, scores = problem()
    loss = all_threshold_loss(rows, reached(scores), 0.01)
    place = np.random.default_rng(1).normal(size=35)
    _, slope = loss(place)
    for axis in range(35):
        step = np.zeros(35)
        step[axis] = 1e-6
        assert (loss(place + step)[0] - loss(place - step)[0]) / 2e-6 == pytest.approx(slope[axis], abs=1e-7)


def test_one_step_is_scikit_learns_logistic_regression() -> None:
    rows, scores = problem()
    good = (scores >= 3).astype(float)
    ours = fit(rows, good[:, None], 1e-2, 1e-9, 500)
    theirs = LogisticRegression(C=1 / (1e-2 * len(good)), tol=1e-9, max_iter=2000).fit(rows, good)
    assert ours.converged
    assert ours.weights == pytest.approx(theirs.coef_[0], abs=1e-5)
    assert -ours.cuts[0] == pytest.approx(theirs.intercept_[0], abs=1e-5)


def test_cuts_are_in_order_and_a_start_does_not_matter() -> None:
    rows, scores = problem()
    cold = fit(rows, reached(scores), 1e-3, 1e-8, 1000)
    warm = fit(rows, reached(scores), 1e-3, 1e-8, 1000, fit(rows, reached(scores), 1e-1, 1e-8, 1000))
    assert np.all(np.diff(cold.cuts) > 0)
    assert warm.value == pytest.approx(cold.value, abs=1e-9)
    assert warm.weights == pytest.approx(cold.weights, abs=1e-4)


def test_steps_that_nobody_or_everybody_reaches() -> None:
    rows, scores = problem()
    found = fit(rows, reached(np.clip(scores, 1, 3)), 1e-2, 1e-8, 500)
    assert found.cuts[0] == -np.inf
    assert np.all(np.isinf(found.cuts[3:]) & (found.cuts[3:] > 0))
    inner = fit(rows, reached(np.clip(scores, 1, 3))[:, 1:3], 1e-2, 1e-8, 500)
    assert found.weights == pytest.approx(inner.weights, abs=1e-6)
    assert fit(rows, np.ones((120, 5)), 1e-2, 1e-8, 500).weights == pytest.approx(np.zeros(30))


def test_a_search_that_is_cut_short_says_so() -> None:
    rows, scores = problem()
    found = minimise(all_threshold_loss(rows, reached(scores), 1e-6), np.zeros(35), 1e-12, 3)
    assert not found.converged
    assert found.iterations == 3
