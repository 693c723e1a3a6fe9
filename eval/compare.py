"""Two models on the same items: how many answers changed for better and for worse, and what that says."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json_lines
from eval.intervals import mcnemar_p, paired_difference

METHOD = "Clopper-Pearson on how the changed items split into gains and losses, given their number; McNemar's exact test"


def read_right(path: str | Path, task: str, scoring: str) -> dict[str, bool]:
    """Item id -> whether it was right, from an items.jsonl."""
    rows = [row for row in read_json_lines(path) if row.get("task") == task]
    if not rows:
        raise InputError(f"{path}: no items of the task {task!r}")
    right = {row["id"]: row.get("right", {}) for row in rows}
    known = next(iter(right.values()))
    if scoring not in known:
        raise InputError(f"{path}: {task} has no scoring {scoring!r}; there is {', '.join(known) or 'none'}")
    return {item: bool(found[scoring]) for item, found in right.items()}


def compare(before: str | Path, after: str | Path, task: str = "mmlu", scoring: str = "letter", confidence: float = 0.95) -> dict[str, Any]:
    """The paired comparison of two items.jsonl (or the folders that hold them) of the same items.

    Returns `points` (after minus before, in percentage points) with the interval `low` to `high`, the counts `wrong_to_right` and
    `right_to_wrong`, McNemar's `p_value`, both accuracies and the method. Raises InputError where the items differ.
    """
    sides = [Path(one) / "items.jsonl" if Path(one).is_dir() else Path(one) for one in (before, after)]
    first, second = (read_right(path, task, scoring) for path in sides)
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise InputError(f"{sides[0]} and {sides[1]}: not the same items of {task}; {len(odd)} are in one only, {odd[0]!r} first")
    gained = sum(second[item] and not first[item] for item in first)
    lost = sum(first[item] and not second[item] for item in first)
    items = len(first)
    low, high = paired_difference(gained, lost, items, confidence)
    return {
        "task": task,
        "scoring": scoring,
        "items": items,
        "before": sum(first.values()) / items,
        "after": sum(second.values()) / items,
        "points": 100 * (gained - lost) / items,
        "low": 100 * low,
        "high": 100 * high,
        "confidence": confidence,
        "wrong_to_right": gained,
        "right_to_wrong": lost,
        "p_value": mcnemar_p(gained, lost),
        "method": METHOD,
    }
