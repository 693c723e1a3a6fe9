"""What must hold before anything is timed: all ways compute the same step, and packed documents do not see one another."""

import math
import time
from dataclasses import replace

import torch

from benchmarks.step.rows import IGNORED, Batch
from benchmarks.step.sides import Side, autocast, label
from data_pipeline.errors import InputError

# Relative bounds on loss and gradient norm. bfloat16 keeps 8 bits and float8 4, and the sides round at different places.
BOUNDS = {"float32": (1e-5, 1e-4), "bfloat16": (2e-3, 2e-2), "float8": (5e-2, 2e-1)}
# A change of other documents moves the loss by this share at most where they are kept apart, and by more where they are not.
LEAK_BOUND = 1e-7


class Disagreement(InputError):
    """Two ways differ by more than rounding, so their speeds cannot be compared."""


def check_sides(sides: list[Side], batch: Batch, bfloat16: bool) -> dict[str, dict[str, float]]:
    """Loss, gradient norm and seconds (compilation included) of every way of every side, by label; raises Disagreement.

    Each is held against the last side's first way. Before any step, because a side with more ways has taken more steps afterwards.
    """
    reference = label(sides[-1], next(iter(sides[-1].ways)))
    found: dict[str, dict[str, float]] = {}
    for side in sides:
        for way in side.ways:
            began = time.perf_counter()
            loss, norm = side.gradient_norm(way, batch, bfloat16)
            found[label(side, way)] = {"loss": loss, "gradient_norm": norm, "seconds": round(time.perf_counter() - began, 2)}
    for name, its in found.items():
        check_same(name, its, reference, found[reference], batch.kind, "bfloat16" if bfloat16 else "float32")
    return found


def check_same(name: str, its: dict[str, float], other_name: str, other: dict[str, float], kind: str, precision: str) -> None:
    """Loss and gradient norm of a way against another's; raises Disagreement."""
    for what, bound in zip(("loss", "gradient_norm"), BOUNDS[precision], strict=True):
        if not math.isclose(its[what], other[what], rel_tol=bound):
            raise Disagreement(
                f"{what.replace('_', ' ')} on {kind} rows: {name} has {its[what]:.8g}, {other_name} {other[what]:.8g}; {bound:g} is allowed"
            )


def leak(side: Side, way: str, batch: Batch, bfloat16: bool) -> float:
    """How much the loss on later documents changes when the first document of each row is another text, as a share of the loss."""
    if not bool((batch.documents_BT > 0).any()):
        raise InputError(f"the first batch of {batch.kind} rows holds one document a row, so isolation cannot be tried; take more rows")
    first_BT = batch.documents_BT == 0
    later = replace(batch, targets_BT=torch.where(first_BT, IGNORED, batch.targets_BT))
    changed = replace(later, ids_BT=torch.where(first_BT, batch.ids_BT.flip(-1), batch.ids_BT))
    # With gradients on, as in the step that is timed: a compiled model would compile again without them.
    with autocast(batch, bfloat16):
        before, after = side.ways[way](later).item(), side.ways[way](changed).item()
    return abs(after - before) / before


def check_the_check(side: Side, batch: Batch, bfloat16: bool) -> float:
    """The leak of the side when it is not told of documents, which must show; raises Disagreement."""
    share = leak(side, "eager", replace(batch, kind="unpacked"), bfloat16)
    if share <= LEAK_BOUND:
        raise Disagreement(
            f"{side.name}: documents that see one another change the loss by {share:.2g} of it only; isolation cannot be told"
        )
    return share


def check_isolation(side: Side, way: str, batch: Batch, bfloat16: bool, bound: float = LEAK_BOUND) -> float:
    """The leak, which must be nothing; raises Disagreement."""
    share = leak(side, way, batch, bfloat16)
    if share > bound:
        raise Disagreement(f"{side.name}, {way}: another first document changes the loss on later ones by {share:.2g} of it")
    return share
