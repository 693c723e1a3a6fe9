"""A run that goes on in another layout: other numbers of ranks, other axes, other ZeRO stages, nothing converted by anybody."""

from pathlib import Path

import pytest
import torch

from modeling.checkpoint import Checkpoint
from modeling.errors import ModelError
from tests.training import engine_ranks
from tests.training.test_engines import Series, distance, title

SAVED_AT = 5
BOUNDS = {20: 5e-6, 50: 1e-5}
SOURCES = [
    {"zero_stage": 1, "data": 2},
    {"zero_stage": 3, "data": 2},
    {"zero_stage": 1, "tensor": 2, "data": 1},
    {"zero_stage": 1, "tensor": 2, "data": 2},
]
TARGETS = [
    {"data": 1},
    {"zero_stage": 1, "data": 2},
    {"zero_stage": 1, "data": 4},
    {"zero_stage": 1, "tensor": 2, "data": 1},
    {"zero_stage": 2, "tensor": 4, "data": 1},
    {"zero_stage": 3, "tensor": 2, "data": 2},
    {"zero_stage": 0, "data": 2},
    {"zero_stage": 2, "context": 2, "data": 2},
]


def call(ranks, layout: dict, function, *arguments):
    layout = dict(layout)
    count = layout.pop("data") * layout.get("tensor", 1) * layout.get("context", 1)
    return function(layout, *arguments) if count == 1 else ranks(count, function, layout, *arguments)[0]


@pytest.fixture(scope="module")
def undisturbed() -> Series:
    """One plain rank, never stopped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return engine_ranks.run({}, steps=SAVED_AT + 50)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=SOURCES, ids=title)
def saved(request, ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, Series]:
    """A checkpoint of a layout, and what that layout's run went on with."""
    folder = tmp_path_factory.mktemp("saved")
    after = call(ranks, request.param, engine_ranks.save_and_go_on, "float32", str(folder), SAVED_AT, 3)
    return request.param, folder, after


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=title)
def test_the_run_goes_on_in_another_layout(ranks, undisturbed: Series, saved, target: dict) -> None:
    _, folder, _ = saved
    found = call(ranks, target, engine_ranks.go_on, "float32", str(folder), SAVED_AT, 20)
    loss, norm = distance(found, undisturbed[SAVED_AT : SAVED_AT + 20])
    assert loss < BOUNDS[20]
    assert norm < 2e-5


@pytest.mark.slow
def test_the_same_layout_goes_on_bit_for_bit(ranks, saved) -> None:
    layout, folder, after = saved
    assert call(ranks, layout, engine_ranks.go_on, "float32", str(folder), SAVED_AT, 3) == after


@pytest.mark.slow
def test_fifty_steps_after_a_change(ranks, undisturbed: Series, saved) -> None:
    _, folder, _ = saved
    found = call(ranks, {"zero_stage": 3, "data": 2}, engine_ranks.go_on, "float32", str(folder), SAVED_AT, 50)
    assert distance(found, undisturbed[SAVED_AT:])[0] < BOUNDS[50]


@pytest.mark.slow
@pytest.mark.parametrize("target", [{"data": 1}, {"zero_stage": 2, "data": 2}, {"zero_stage": 3, "tensor": 2, "data": 1}], ids=title)
def test_masters_go_on_exactly(ranks, tmp_path: Path, target: dict) -> None:
    """bfloat16 weights: the float32 masters are what is saved, so the run goes on as if nothing had been."""
    source = {"zero_stage": 1, "data": 2}
    after = call(ranks, source, engine_ranks.save_and_go_on, "bfloat16-master", str(tmp_path), SAVED_AT, 5)
    found = call(ranks, target, engine_ranks.go_on, "bfloat16-master", str(tmp_path), SAVED_AT, 5)
    assert distance(found, after)[0] < 1e-3
    assert call(ranks, source, engine_ranks.go_on, "bfloat16-master", str(tmp_path), SAVED_AT, 5) == after


def test_what_is_not_restored_is_noticed(ranks, undisturbed: Series, saved) -> None:
    """Moments left at zero, and a bias correction that counts from the beginning: each leaves the bounds."""
    _, folder, _ = saved
    for forgotten in ("moments", "updates"):
        found = engine_ranks.go_on({}, "float32", str(folder), SAVED_AT, 5, forget=forgotten)
        assert distance(found, undisturbed[SAVED_AT : SAVED_AT + 5])[0] > 3 * BOUNDS[20]


def test_every_rank_writes_its_own_part_once(ranks, saved) -> None:
    """The parts tile every tensor (the reader checks it), and no rank has written all of it."""
    layout, folder, _ = saved
    checkpoint = Checkpoint(folder / f"step-{SAVED_AT:08d}")
    checkpoint.verify()
    writers = {name.split("-")[1] for name in checkpoint.files}
    assert len(writers) == layout["data"] * layout.get("tensor", 1)
    manifest = folder / f"step-{SAVED_AT:08d}" / "manifest.json"
    broken = manifest.read_text().replace('"offsets": [\n      0', '"offsets": [\n      1', 1)
    other = folder / "broken"
    other.mkdir(exist_ok=True)
    (other / "manifest.json").write_text(broken)
    with pytest.raises(ModelError):
        Checkpoint(other)
