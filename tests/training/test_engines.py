"""Every engine and layout against one plain rank: ZeRO 0 to 3 x tensor x context x data, losses and gradient norms of twenty steps."""

import pytest
import torch

from tests.training import engine_ranks

FP32 = (5e-6, 2e-5)  # loss, absolute; norm, relative
BF16 = (3e-3, 2e-2)

Series = list[tuple[float, float]]


@pytest.fixture(scope="module")
def one_rank() -> Series:
    """Plain torch on one rank, float32."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return engine_ranks.run({}, micro_rows=4)
    finally:
        torch.set_num_threads(before)


def distance(one: Series, other: Series) -> tuple[float, float]:
    """The largest difference of losses, and of norms relatively."""
    return (
        max(abs(a - b) for (a, _), (b, _) in zip(one, other, strict=True)),
        max(abs(a / b - 1) for (_, a), (_, b) in zip(one, other, strict=True)),
    )


def assert_near(found: list[Series], expected: Series, bounds: tuple[float, float]) -> None:
    assert all(series == found[0] for series in found), "ranks disagree about their own loss or norm"
    loss, norm = distance(found[0], expected)
    assert loss < bounds[0], f"loss differs by {loss:.2e}"
    assert norm < bounds[1], f"norm differs by {norm:.2e}"


WORLDS = [(1, 1, 2), (1, 2, 1), (2, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1), (2, 2, 2)]  # tensor, context, data
LAYOUTS = [
    {"zero_stage": stage, "tensor": tensor, "context": context, "data": data} for tensor, context, data in WORLDS for stage in (0, 1, 2, 3)
]
# What does not fit into the table: other ways of seeing other ranks' tokens, tokens split over tensor ranks, states in host memory.
OTHERS = [
    {"zero_stage": 1, "context": 2, "context_way": "ring", "data": 1},
    {"zero_stage": 2, "context": 2, "context_way": "halo", "data": 1},
    {"zero_stage": 1, "tensor": 2, "sequence": True, "data": 1},
    {"zero_stage": 3, "tensor": 2, "sequence": True, "data": 2},
    {"zero_stage": 1, "data": 2, "offload": "cpu"},
    {"zero_stage": 2, "data": 2, "offload": "cpu"},
    {"zero_stage": 3, "data": 2, "offload": "cpu"},
    {"zero_stage": 0, "data": 2, "overlap": False},
]
BF16_LAYOUTS = [
    *({"zero_stage": stage, "data": 2} for stage in (0, 1, 2, 3)),
    *({"zero_stage": stage, "tensor": 2, "data": 2} for stage in (1, 3)),
    {"zero_stage": 2, "tensor": 2, "context": 2, "data": 1},
    {"zero_stage": 1, "data": 2, "offload": "cpu"},
]


def title(layout: dict) -> str:
    return "-".join(f"{name}{value}" for name, value in layout.items())


def call(ranks, layout: dict, precision: str = "float32", **settings) -> list[Series]:
    layout = dict(layout)
    count = layout.pop("data") * layout.get("tensor", 1) * layout.get("context", 1)
    return ranks(count, engine_ranks.run_with, layout, precision, settings)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=title)
def test_float32(ranks, one_rank: Series, layout: dict) -> None:
    assert_near(call(ranks, layout), one_rank, FP32)


@pytest.mark.slow
@pytest.mark.parametrize("layout", OTHERS, ids=title)
def test_other_layouts(ranks, one_rank: Series, layout: dict) -> None:
    assert_near(call(ranks, layout), one_rank, FP32)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16-master", "bfloat16"])
@pytest.mark.parametrize("layout", BF16_LAYOUTS, ids=title)
def test_bfloat16(ranks, one_rank: Series, layout: dict, precision: str) -> None:
    if precision == "bfloat16" and layout.get("context", 1) > 1:
        pytest.skip("one layout of context ranks is enough")
    assert_near(call(ranks, layout, precision), one_rank, BF16)


def test_one_rank_in_bfloat16(one_rank: Series) -> None:
    for precision in ("bfloat16-master", "bfloat16"):
        assert_near([engine_ranks.run({}, precision)], one_rank, BF16)


@pytest.mark.parametrize("data", [2, 4])
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("precision", ["float32", "bfloat16-master"])
def test_deterministic_ranks_give_equal_bits(ranks, data: int, stage: int, precision: str) -> None:
    """Losses, norms and every weight of 1, 2 and 4 data ranks, bit for bit; without the fixed tree they differ."""
    settings = {"deterministic": True, "micro_rows": 1}
    alone = engine_ranks.run_to_weights({}, precision, settings)
    for found in ranks(data, engine_ranks.run_to_weights, {"zero_stage": stage}, precision, settings):
        assert found == alone
    if precision == "float32":
        free = ranks(data, engine_ranks.run_to_weights, {"zero_stage": 0}, precision, {"micro_rows": 1})
        assert free[0][1] != alone[1]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unmarked", "summed twice"])
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_wrong_gradient_is_caught(ranks, one_rank: Series, stage: int, fault: str) -> None:
    """A split parameter that is not marked, and a gradient that is summed once too often, are both far outside the bounds."""
    world = {"tensor": 2} if fault == "unmarked" else {}
    found = ranks(2, engine_ranks.run_faulty, {"zero_stage": stage, **world}, fault)
    with pytest.raises(AssertionError, match="differs by"):
        assert_near(found[:1], one_rank, FP32)
    assert distance(found[0], one_rank)[1] > 10 * FP32[1]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16-master"])
def test_an_update_that_is_not_accepted_changes_nothing(ranks, stage: int, precision: str) -> None:
    """Its weights, moments and update count: the steps after it go on as if its batch had not been there."""
    for left_out, never_there in ranks(2, engine_ranks.skip_one, {"zero_stage": stage}, precision):
        assert left_out == never_there


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16-master"])
def test_an_update_is_judged_by_its_own_norm(ranks, stage: int, precision: str) -> None:
    """Not by the step's before, which is what DeepSpeed's engine tells at that moment."""
    for found in ranks(2, engine_ranks.facts_of_gate, {"zero_stage": stage}, precision):
        assert all(asked == pytest.approx(reported, rel=1e-6) for asked, reported in found)
        assert len({norm for (_, norm), _ in found}) == len(found)
