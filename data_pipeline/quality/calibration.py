"""From a model's logit to a probability that means what it says, and how far it does.

Isotonic: the best non-decreasing step function (pool adjacent violators; Ayer et al. 1955), straight lines between its blocks.
Platt: sigmoid(a * logit + b), with Platt's (1999) smoothed targets. Both keep the order of the documents.
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit

Method = Literal["isotonic", "platt", "constant"]


class Curve(NamedTuple):
    """A calibration: isotonic knots (logits, probabilities), Platt's (a, b) as `logits` = [a], `probabilities` = [b], or one constant."""

    method: Method
    logits: np.ndarray
    probabilities: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """float64 probabilities of float64 logits."""
        if self.method == "constant":
            return np.full(len(logits), self.probabilities[0])
        if self.method == "platt":
            return expit(self.logits[0] * logits + self.probabilities[0])
        return np.interp(logits, self.logits, self.probabilities)


def calibrated(method: Literal["auto", "isotonic", "platt"], logits: np.ndarray, hits: np.ndarray) -> Curve:
    """The curve for 0/1 `hits`; `auto` is isotonic from 1,000 documents on. Where all or none hit, it is their smoothed share."""
    if hits.all() or not hits.any():
        return Curve("constant", np.zeros(0), np.array([(hits.sum() + 1) / (len(hits) + 2)]))
    if method == "isotonic" or (method == "auto" and len(hits) >= 1000):
        return isotonic(logits, hits)
    return platt(logits, hits)


def isotonic(logits: np.ndarray, hits: np.ndarray) -> Curve:
    """Pool adjacent violators; probabilities stay 1 / (n + 2) away from 0 and 1, since n documents can say no more."""
    places, _, counts = np.unique(logits, return_index=True, return_counts=True)
    order = np.argsort(logits, kind="stable")
    means = np.add.reduceat(hits[order].astype(float), np.concatenate([[0], np.cumsum(counts)[:-1]])) / counts
    blocks: list[list[float]] = []  # [mean, weight, first place, last place]
    for place, mean, count in zip(places, means, counts, strict=True):
        blocks.append([mean, float(count), place, place])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean_2, weight_2, _, last = blocks.pop()
            mean_1, weight_1, begin, _ = blocks.pop()
            weight = weight_1 + weight_2
            blocks.append([(mean_1 * weight_1 + mean_2 * weight_2) / weight, weight, begin, last])
    least = 1 / (len(hits) + 2)
    knots = [(place, min(max(mean, least), 1 - least)) for mean, _, begin, last in blocks for place in sorted({begin, last})]
    return Curve("isotonic", np.array([place for place, _ in knots]), np.array([mean for _, mean in knots]))


def platt(logits: np.ndarray, hits: np.ndarray, iterations: int = 100) -> Curve:
    """Newton's method on (a, b), halving steps that do not descend; a is kept from falling below 0, where the order would turn."""
    good = float(hits.sum())
    targets = np.where(hits, (good + 1) / (good + 2), 1 / (len(hits) - good + 2))

    def loss(a: float, b: float) -> float:
        line = a * logits + b
        return float((np.logaddexp(0.0, line) - targets * line).sum())

    a, b = 0.0, float(np.log(targets.mean() / (1 - targets.mean())))
    for _ in range(iterations):
        chance = expit(a * logits + b)
        error, spread = chance - targets, chance * (1 - chance)
        slope_a, slope_b = float((error * logits).sum()), float(error.sum())
        aa, ab, bb = float((spread * logits * logits).sum()) + 1e-9, float((spread * logits).sum()), float(spread.sum()) + 1e-9
        determinant = aa * bb - ab * ab
        move_a, move_b = (bb * slope_a - ab * slope_b) / determinant, (aa * slope_b - ab * slope_a) / determinant
        step, before = 1.0, loss(a, b)
        while step > 1e-8 and loss(a - step * move_a, b - step * move_b) > before:
            step /= 2
        a, b = a - step * move_a, b - step * move_b
        if step <= 1e-8 or max(abs(move_a), abs(move_b)) < 1e-10:
            break
    if a < 0:
        return Curve("platt", np.array([0.0]), np.array([float(np.log(targets.mean() / (1 - targets.mean())))]))
    return Curve("platt", np.array([a]), np.array([b]))


def temperature(logits: np.ndarray, kinds: np.ndarray) -> float:
    """The factor on the logits [documents, kinds] before the softmax that gives the least log loss, by golden section on its logarithm."""

    def loss(log_factor: float) -> float:
        scaled = logits * np.exp(log_factor)
        top = scaled.max(axis=1, keepdims=True)
        normal = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((normal - scaled[np.arange(len(kinds)), kinds]).sum())

    low, high, ratio = -4.0, 4.0, (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        inner, outer = high - ratio * (high - low), low + ratio * (high - low)
        if loss(inner) <= loss(outer):
            high = outer
        else:
            low = inner
    return float(np.exp((low + high) / 2))


def reliability(probabilities: np.ndarray, hits: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Per bin of equal width that has documents: its bounds, how many, the mean probability said and the share that came true."""
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    table = []
    for one in range(bins):
        inside = which == one
        if inside.any():
            said, true = float(probabilities[inside].mean()), float(hits[inside].mean())
            table.append({"from": one / bins, "to": (one + 1) / bins, "documents": int(inside.sum()), "said": said, "true": true})
    return table


def expected_calibration_error(table: list[dict[str, float]]) -> float:
    """The mean distance between said and true over a reliability table's documents."""
    return sum(one["documents"] * abs(one["said"] - one["true"]) for one in table) / max(sum(one["documents"] for one in table), 1)


def brier(probabilities: np.ndarray, hits: np.ndarray) -> float:
    """The mean squared distance between probability and outcome (Brier, 1950)."""
    return float(((probabilities - hits) ** 2).mean())
