"""Ordinal and logistic regression on sparse rows, fitted by L-BFGS with sums in a fixed order.

The ordinal model has one weight vector w and a cut c_k for each step of the score: P(score >= k) = sigmoid(w.x - c_k). The loss adds the
logistic loss of every step (the all-threshold loss of Rennie and Srebro, 2005) and (penalty / 2) |w|^2; it is convex, and its cuts are in
order at the minimum. With one step it is logistic regression: scikit-learn's with C = 1 / (penalty * rows). No BLAS call adds numbers
here, so the result does not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Minimum(NamedTuple):
    """Where a search ended."""

    place: np.ndarray
    value: float
    iterations: int
    converged: bool


class Fit(NamedTuple):
    """Weights float64 [columns], cuts float64 [steps] (infinite for a step that all or no rows reach), and how the search went."""

    weights: np.ndarray
    cuts: np.ndarray
    value: float
    iterations: int
    converged: bool


def dot(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum())


def minimise(loss: Loss, start: np.ndarray, tolerance: float, max_iterations: int, memory: int = 8) -> Minimum:
    """The minimum of a convex, smooth loss by L-BFGS (Nocedal and Wright, 2006, algorithm 7.4), halving steps that do not descend enough.

    It has converged when no slope is larger than `tolerance`, or when no step along the search direction lowers the loss any more.
    """
    place, (value, slope) = start, loss(start)
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=memory)
    for iteration in range(max_iterations):
        if np.abs(slope).max() <= tolerance:
            return Minimum(place, value, iteration, True)
        direction = search_direction(slope, pairs)
        descent = dot(slope, direction)
        step = 1.0 if pairs else min(1.0, 1.0 / np.sqrt(dot(slope, slope)))
        while True:
            reached = place + step * direction
            new_value, new_slope = loss(reached)
            if new_value <= value + 1e-4 * step * descent:
                break
            step /= 2
            if step < 1e-10:
                return Minimum(place, value, iteration, True)
        move, change = reached - place, new_slope - slope
        curvature = dot(move, change)
        if curvature > 1e-12 * dot(change, change):
            pairs.append((move, change, curvature))
        place, value, slope = reached, new_value, new_slope
    return Minimum(place, value, max_iterations, bool(np.abs(slope).max() <= tolerance))


def search_direction(slope: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """The two-loop recursion: minus the inverse Hessian that the last moves tell of, times the slope."""
    direction, shares = -slope, []
    for move, change, curvature in reversed(pairs):
        share = dot(move, direction) / curvature
        direction = direction - share * change
        shares.append(share)
    if pairs:
        _, change, curvature = pairs[-1]
        direction = direction * (curvature / dot(change, change))
    for (move, change, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - dot(change, direction) / curvature) * move
    return direction


def all_threshold_loss(rows: sparse.csr_matrix, reached: np.ndarray, penalty: float) -> Loss:
    """The loss and its slope at [weights, cuts]; `reached` is 0/1 float64 [rows, steps]."""
    (count, steps), columns = reached.shape, width(rows)
    turned = rows.T.tocsr()

    def loss(place: np.ndarray) -> tuple[float, np.ndarray]:
        weights, cuts = place[:columns], place[columns:]
        logits = (rows @ weights)[:, None] - cuts
        value = float((np.logaddexp(0.0, logits) - reached * logits).sum()) / count + penalty / 2 * dot(weights, weights)
        errors = (expit(logits) - reached) / count
        by_row = errors[:, 0].copy()
        for step in range(1, steps):
            by_row += errors[:, step]
        return value, np.concatenate([turned @ by_row + penalty * weights, -errors.sum(axis=0)])

    return loss


def fit(
    rows: sparse.csr_matrix, reached: np.ndarray, penalty: float, tolerance: float, max_iterations: int, start: Fit | None = None
) -> Fit:
    """The ordinal model of 0/1 `reached` [rows, steps]; a step that all rows or none reach gets the cut -inf or inf.

    `start` is a fit of the same rows with another penalty.
    """
    count, columns = len(reached), width(rows)
    totals = reached.sum(axis=0)
    cuts = np.where(totals == 0, np.inf, -np.inf)
    inside = (totals > 0) & (totals < count)
    if not inside.any():
        return Fit(np.zeros(columns), cuts, 0.0, 0, True)
    begin = np.concatenate([np.zeros(columns), np.log((count - totals[inside]) / totals[inside])])
    if start is not None:
        begin = np.concatenate([start.weights, start.cuts[inside]])
    found = minimise(all_threshold_loss(rows, reached[:, inside].astype(float), penalty), begin, tolerance, max_iterations)
    cuts[inside] = found.place[columns:]
    return Fit(found.place[:columns], cuts, found.value, found.iterations, found.converged)


def width(rows: sparse.csr_matrix) -> int:
    assert rows.shape is not None
    return int(rows.shape[1])


def log_loss(logits: np.ndarray, reached: np.ndarray) -> float:
    """The mean logistic loss over rows, added over steps; steps with an infinite cut count where they are wrong, at 1e-6 probability."""
    bounded = np.clip(logits, -13.8, 13.8)
    return float((np.logaddexp(0.0, bounded) - reached * bounded).sum()) / len(reached)
