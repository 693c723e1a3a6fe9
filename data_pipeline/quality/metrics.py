"""What is measured of a scorer on labelled documents."""

from typing import Any

import numpy as np
from scipy.stats import rankdata

from data_pipeline.quality.calibration import brier, expected_calibration_error, reliability


def decision(kept: np.ndarray, good: np.ndarray) -> dict[str, float]:
    """Precision, recall, F1 and accuracy of keeping `kept` (bool) where `good` (bool) is right; 0 where nothing can be divided."""
    hits, false_hits, misses = int((kept & good).sum()), int((kept & ~good).sum()), int((~kept & good).sum())
    precision, recall = hits / max(hits + false_hits, 1), hits / max(hits + misses, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * hits / max(2 * hits + false_hits + misses, 1),
        "accuracy": float((kept == good).mean()),
        "kept": int(kept.sum()),
        "good": int(good.sum()),
        "documents": len(good),
    }


def over_thresholds(values: np.ndarray, good: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of keeping values >= threshold, for every value that occurs, in rising order: float64 arrays."""
    thresholds, first = np.unique(np.sort(values), return_index=True)
    ordered = good[np.argsort(values, kind="stable")]
    hits = (ordered.sum() - np.concatenate([[0], np.cumsum(ordered)]))[first].astype(float)
    kept = (len(values) - first).astype(float)
    precision, recall = hits / kept, hits / max(int(good.sum()), 1)
    return {"threshold": thresholds, "precision": precision, "recall": recall, "f1": 2 * hits / np.maximum(kept + good.sum(), 1)}


def best_threshold(values: np.ndarray, good: np.ndarray) -> float:
    """The threshold of the highest F1, halfway to the next lower value, so that no document lies on it."""
    curve = over_thresholds(values, good)
    best = int(np.argmax(curve["f1"]))
    threshold = float(curve["threshold"][best])
    return (threshold + float(curve["threshold"][best - 1])) / 2 if best else threshold


def ranking_area(values: np.ndarray, good: np.ndarray) -> float:
    """The chance that a good document is above another one (the area under the ROC curve); ties count half."""
    positives = int(good.sum())
    negatives = len(good) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(values)[good].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    left, right = rankdata(one), rankdata(other)
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((left * left).sum() * (right * right).sum()))
    return float((left * right).sum()) / scale if scale else 0.0


def kappa(one: np.ndarray, other: np.ndarray, weighted: bool = False) -> float:
    """Cohen's kappa of two integer ratings (Cohen, 1960); `weighted` squares the distance (1968). 1 where nothing ever varies."""
    values = np.unique(np.concatenate([one, other]))
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (np.searchsorted(values, one), np.searchsorted(values, other)), 1 / len(one))
    chance = np.outer(table.sum(axis=1), table.sum(axis=0))
    distance = (values[:, None] - values[None, :]).astype(float) ** 2 if weighted else (values[:, None] != values[None, :]).astype(float)
    expected = float((distance * chance).sum())
    return 1.0 - float((distance * table).sum()) / expected if expected else 1.0


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not trials:
        return 0.0, 1.0
    z, share = 1.959964, hits / trials
    middle, scale = share + z * z / (2 * trials), 1 + z * z / trials
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def confusion(true: list[str], said: list[str], kinds: tuple[str, ...]) -> list[list[int]]:
    """How many documents of each true kind (row) were said to be of each kind (column)."""
    place = {kind: number for number, kind in enumerate(kinds)}
    table = [[0] * len(kinds) for _ in kinds]
    for one, other in zip(true, said, strict=True):
        table[place[one]][place[other]] += 1
    return table


def measured(values: np.ndarray, probabilities: np.ndarray, scores: np.ndarray, threshold: int, min_score: float) -> dict[str, Any]:
    """Everything about the score: decisions at `min_score` and at probability 0.5, ranking, calibration, distance to the labels."""
    good = scores >= threshold - 0.5
    table = reliability(probabilities, good)
    return {
        "at_min_score": decision(values >= min_score, good),
        "at_half": decision(probabilities >= 0.5, good),
        "ranking_area": ranking_area(values, good),
        "spearman": spearman(values, scores),
        "mean_absolute_error": float(np.abs(values - scores).mean()),
        "brier": brier(probabilities, good),
        "expected_calibration_error": expected_calibration_error(table),
        "reliability": table,
    }


def kinds_measured(true: list[str], said: list[str], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, the mean F1 over kinds that occur, and the table of both, over documents whose label names one of the model's kinds."""
    pairs = [(one, other) for one, other in zip(true, said, strict=True) if one in kinds]
    if not pairs:
        return {"documents": 0, "accuracy": 0.0, "mean_f1": 0.0, "kinds": list(kinds), "table": []}
    table = confusion([one for one, _ in pairs], [other for _, other in pairs], kinds)
    counts = np.array(table, float)
    right, rows, columns = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    f1 = 2 * right[rows > 0] / (rows + columns)[rows > 0]
    return {
        "documents": len(pairs),
        "accuracy": float(right.sum() / counts.sum()),
        "mean_f1": float(f1.mean()),
        "kinds": list(kinds),
        "table": table,
    }
