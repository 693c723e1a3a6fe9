"""Whether a checkpoint's manifest says what a reader needs: its form, and that the parts of every tensor tile it."""

from collections import Counter
from itertools import product
from math import prod
from typing import Any

from modeling.checkpoint_parts import DTYPE_NAMES, volume
from modeling.errors import ModelError

# Up to so many dims along which a tensor is cut, its parts' corners are counted: a box has 2^dims.
CORNER_DIMS = 6


def check_manifest(where: str, manifest: dict[str, Any]) -> None:
    """Refuses a manifest of which a reader would make nonsense, or memory that nobody has filled."""
    for name in ("metadata", "tensors", "files"):
        if not isinstance(manifest[name], dict):
            raise ModelError(f"{where}: {name} must be a table, got {manifest[name]!r:.60}")
    for name, facts in manifest["files"].items():
        known = isinstance(facts, dict) and is_count(facts.get("bytes")) and isinstance(facts.get("sha256"), str)
        if not known or not name or "/" in name:
            raise ModelError(f"{where}: a file of the folder with its bytes and sha256 is needed, got {name!r}: {facts!r:.60}")
    for name, entry in manifest["tensors"].items():
        if not isinstance(entry, dict) or not are_counts(entry.get("shape")) or not isinstance(entry.get("parts"), list):
            raise ModelError(f"{where}: tensor {name!r} needs a shape, a dtype and parts, got {entry!r:.60}")
        if not isinstance(entry.get("dtype"), str) or entry["dtype"] not in DTYPE_NAMES:
            raise ModelError(f"{where}: tensor {name!r} has the dtype {entry.get('dtype')!r}; there is {', '.join(sorted(DTYPE_NAMES))}")
        for part in entry["parts"]:
            if not is_part(part, len(entry["shape"])) or part["file"] not in manifest["files"]:
                raise ModelError(
                    f"{where}: a part of {name!r} needs a file that the manifest names, and as many offsets and sizes as the tensor has "
                    f"dims, got {part!r:.90}"
                )
        check_tiling(f"{where}: {name}", entry["shape"], entry["parts"])


def is_count(value: Any) -> bool:
    """A whole number of at least 0; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def are_counts(value: Any) -> bool:
    """A list of nothing but such numbers."""
    return isinstance(value, list) and all(is_count(one) for one in value)


def is_part(value: Any, dims: int) -> bool:
    """A part of a tensor of `dims` dims, as far as its form goes."""
    if not isinstance(value, dict) or not isinstance(value.get("file"), str) or not isinstance(value.get("key", ""), str):
        return False
    return all(are_counts(value.get(name)) and len(value[name]) == dims for name in ("offsets", "sizes"))


def check_tiling(what: str, shape: list[int], parts: list[dict[str, Any]]) -> None:
    """Parts must lie inside the tensor, apart from one another, and fill it."""
    for part in parts:
        ends = [start + size for start, size in zip(part["offsets"], part["sizes"], strict=True)]
        inside = min(part["offsets"], default=0) >= 0 and all(end <= length for end, length in zip(ends, shape, strict=True))
        if not inside:
            raise ModelError(f"{what}: the part at {part['offsets']} of sizes {part['sizes']} lies outside the shape {shape}")
    filled = sum(volume(part["sizes"]) for part in parts)
    if filled != volume(shape):
        raise ModelError(f"{what}: the parts hold {filled} numbers where the shape {shape} has {volume(shape)}")
    full = [part for part in parts if volume(part["sizes"])]
    if full and not cover_once(shape, full):  # equal volumes alone would let an overlap hide a gap
        refuse_overlap(what, shape, full)


def cover_once(shape: list[int], parts: list[dict[str, Any]]) -> bool:
    """Whether every entry of the tensor is in one part; False too where the tensor is cut along too many dims to count corners.

    The function that is 1 inside a box and 0 outside has, differenced once along every dim, a sign at each corner of the box and 0
    elsewhere; sums give it back. So boxes cover the tensor once just where their signed corners add up to those of the tensor's own box.
    """
    dims = [dim for dim, length in enumerate(shape) if any(part["sizes"][dim] != length for part in parts)]
    if len(dims) > CORNER_DIMS:
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    boxes = [(1, part["offsets"], part["sizes"]) for part in parts]
    for count, offsets, sizes in [*boxes, (-1, [0] * len(shape), shape)]:
        for corner in product(*(((offsets[dim], 1), (offsets[dim] + sizes[dim], -1)) for dim in dims)):
            corners[tuple(place for place, _ in corner)] += count * prod(sign for _, sign in corner)
    return not any(corners.values())


def refuse_overlap(what: str, shape: list[int], full: list[dict[str, Any]]) -> None:
    """Names two parts that overlap, if any do."""
    # In the order of the dim in which most of them begin apart, so that each is held against its neighbours only.
    sweep = max(range(len(shape)), key=lambda dim: len({part["offsets"][dim] for part in full}), default=0)
    ordered = sorted(full, key=lambda part: part["offsets"][sweep])
    for number, one in enumerate(ordered):
        for other in ordered[number + 1 :]:
            if other["offsets"][sweep] >= one["offsets"][sweep] + one["sizes"][sweep]:
                break
            if all(
                max(a, b) < min(a + c, b + d)
                for a, b, c, d in zip(one["offsets"], other["offsets"], one["sizes"], other["sizes"], strict=True)
            ):
                raise ModelError(f"{what}: the parts at {one['offsets']} and {other['offsets']} overlap")
