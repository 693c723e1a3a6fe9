"""Every engine and layout against one plain rank: ZeRO 0 to 3 x tensor x context x data, losses and gradient norms of twenty steps."""

import itertools

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


LAYOUTS = [
    {"zero_stage": stage, "tensor": tensor, "context": context, "data": data}
    for stage, tensor, context, data in itertools.product((0, 1, 2, 3), (1, 2), (1, 2), (1, 2))
    if tensor * context * data > 1
]


def title(layout: dict) -> str:
    return f"zero{layout['zero_stage']}-tp{layout['tensor']}-cp{layout['context']}-dp{layout['data']}"


def call(ranks, layout: dict, precision: str = "float32", **settings) -> list[Series]:
    layout = dict(layout)
    count = layout.pop("data") * layout["tensor"] * layout.get("context", 1)
    return ranks(count, engine_ranks.run_with, layout, precision, settings)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=title)
def test_float32(ranks, one_rank, layout):
    assert_near(call(ranks, layout), one_rank, FP32)
