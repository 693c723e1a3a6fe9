"""Which site is for training, validation or test: a pure function of its name, so that no site is ever on two sides."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.quality.labels import Example

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


def side_of(site: str, seed: int, validation_share: float, test_share: float) -> Side:
    """The side of a site; it stays there when other sites come or go."""
    digest = hashlib.sha256(f"{seed}\0{site}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def divided(examples: Sequence[Example], seed: int, validation_share: float, test_share: float, threshold: int) -> dict[Side, np.ndarray]:
    """The indices of each side's examples. Every side must have examples below and from the threshold on."""
    sides = [side_of(one.site, seed, validation_share, test_share) for one in examples]
    good = np.array([one.score >= threshold - 0.5 for one in examples])
    found: dict[Side, np.ndarray] = {}
    for side in SIDES:
        found[side] = np.array([place for place, one in enumerate(sides) if one == side], np.int64)
        count, sites = int(good[found[side]].sum()), len({one.site for one in examples})
        if not 0 < count < len(found[side]):
            raise InputError(
                f"{len(examples)} labelled documents of {sites} sites: the {side} side has {len(found[side])}, {count} of them with a "
                f"score of {threshold} or more; each side needs both sorts: give more sites, another seed, threshold or share"
            )
    return found
