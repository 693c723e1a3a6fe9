"""Which blocks are the main text: small boosted trees over the features of each block."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from data_pipeline.web.extraction.block_features import probabilities

WEIGHTS = Path(__file__).with_name("weights.json")


@cache
def weights() -> tuple[np.ndarray, ...]:
    """The trees: column, threshold and first child of each node, leaves' values, where each tree starts; base and threshold."""
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return unpacked(stored)


def unpacked(stored: dict) -> tuple:  # type: ignore[type-arg]
    """The arrays of a weights file."""
    columns, left = (np.array(stored[name], np.int32) for name in ("columns", "left"))
    thresholds, values = (np.array(stored[name], np.float32) for name in ("thresholds", "values"))
    return columns, thresholds, left, values, np.array(stored["starts"], np.int32), np.float32(stored["base"]), float(stored["threshold"])


def judged(rows: np.ndarray, model: tuple) -> np.ndarray:  # type: ignore[type-arg]
    """The probability of each block to be main text, float32 [blocks]."""
    return probabilities(rows, *model[:6])
