"""Blocksparse attention on the CPU against float64 attention with the whole mask, forward and backward; its counted work; the compiler."""

import dataclasses

import pytest
import torch
from torch import Tensor

from modeling.backends import start_pass
from modeling.backends.blocksparse import blocksparse_attention
from modeling.blocksparse_counts import computed_pairs, dense_pairs, kernel_causal_pairs, needed_pairs
from modeling.config import BlockSparse
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.parallel.stream import ONE_RANK
from modeling.presets import PHI3_SMALL_8K, TINY_SMALL
from modeling.visible import Visible, dense_mask, document_bounds, document_runs

RELEASED = BlockSparse()
# Pattern, query heads, key heads, lengths of one row's documents.
CASES = {
    "small blocks": (BlockSparse(block=4, local_blocks=2, vertical_stride=4), 4, 2, [61]),
    "heads not a multiple of the stride": (BlockSparse(block=3, local_blocks=2, vertical_stride=5), 6, 3, [50]),
    "more heads than offsets": (BlockSparse(block=2, local_blocks=3, vertical_stride=4), 10, 5, [47]),
    "few heads, a wide stride": (BlockSparse(block=4, local_blocks=1, vertical_stride=9), 2, 1, [97]),
    "the same for all heads": (BlockSparse(block=4, local_blocks=2, vertical_stride=4, same_heads=True), 4, 4, [41]),
    "blocks of one token": (BlockSparse(block=1, local_blocks=5, vertical_stride=3), 4, 2, [33]),
    "documents": (BlockSparse(block=4, local_blocks=2, vertical_stride=4), 4, 2, [1, 30, 7, 25]),
    "released pattern": (RELEASED, 8, 2, [1500]),
    "released pattern, documents": (RELEASED, 8, 2, [1300, 64, 200]),
}


def inputs(heads: int, keys: int, tokens: int, dtype: torch.dtype, rows: int = 2) -> list[Tensor]:
    """q, k, v and the output's gradient, stored by token as a layer's projection leaves them."""
    random = torch.Generator().manual_seed(tokens)

    def draw(number: int) -> Tensor:
        return torch.randn(rows, tokens, number, 8, generator=random, dtype=torch.float64).to(dtype).transpose(1, 2)

    return [draw(heads).requires_grad_(), draw(keys).requires_grad_(), draw(keys).requires_grad_(), draw(heads)]


def runs_of(lengths: list[int], rows: int = 2) -> Tensor:
    ids_T = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])
    return document_runs(ids_T[None].expand(rows, -1).contiguous())


def expected(q: Tensor, k: Tensor, v: Tensor, runs_BT: Tensor, sparse: BlockSparse, scale: float) -> Tensor:
    """Scores of every pair, hidden ones at -inf, in float64."""
    tokens, heads = q.shape[2], q.shape[1]
    visible = Visible(num_queries=tokens, num_keys=tokens, runs_BT=runs_BT)
    seen = dense_mask(visible, torch.device("cpu"), sparse, heads)
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) * scale).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


def errors(
    sparse: BlockSparse, heads: int, keys: int, lengths: list[int], dtype: torch.dtype, wrong: BlockSparse | None = None
) -> list[float]:
    """Relative in norm: the output, and the gradients of q, k and v; `wrong` is what the operator is told instead."""
    q, k, v, gradient = inputs(heads, keys, sum(lengths), dtype)
    runs_BT = runs_of(lengths)
    found = blocksparse_attention(q, k, v, document_bounds(runs_BT), wrong or sparse, 0.3)
    ours = [found.detach(), *torch.autograd.grad(found, (q, k, v), gradient)]
    right = expected(q, k, v, runs_BT, sparse, 0.3)
    theirs = [right.detach(), *torch.autograd.grad(right, (q, k, v), gradient.double())]
    return [float((one.double() - other).norm() / other.norm()) for one, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_equals_attention_with_the_whole_mask(case: str, dtype: torch.dtype, bound: float) -> None:
    assert max(errors(*CASES[case], dtype)) < bound


@pytest.mark.parametrize(
    "change", [{"local_blocks": 3}, {"local_blocks": 1}, {"vertical_stride": 5}, {"block": 5}, {"same_heads": True}], ids=str
)
def test_another_pattern_is_noticed(change: dict) -> None:
    sparse, *rest = CASES["small blocks"]
    assert min(errors(sparse, *rest, torch.float32, dataclasses.replace(sparse, **change))) > 1e-2


def test_one_rows_bounds_hold_for_every_row() -> None:
    sparse, heads, keys, lengths = CASES["documents"]
    q, k, v, _ = inputs(heads, keys, sum(lengths), torch.float32)
    whole = blocksparse_attention(q, k, v, document_bounds(runs_of(lengths)), sparse, 0.3)
    assert torch.equal(blocksparse_attention(q, k, v, document_bounds(runs_of(lengths, 1)), sparse, 0.3), whole)


@pytest.mark.parametrize("case", CASES)
def test_counted_pairs_are_those_of_the_mask(case: str) -> None:
    sparse, heads, _, lengths = CASES[case]
    for length in lengths:
        mask = dense_mask(Visible(num_queries=length, num_keys=length), torch.device("cpu"), sparse, heads)
        assert needed_pairs(length, sparse, heads) == int(mask.sum())
        assert computed_pairs(length, sparse, heads) >= needed_pairs(length, sparse, heads)


def test_the_work_at_8k_is_at_most_two_fifths_of_dense() -> None:
    """Against the exact causal triangle, and against what torch's kernel really computes of it; 1328 keys a query are needed."""
    heads, tokens = PHI3_SMALL_8K.num_heads, 8192
    computed = computed_pairs(tokens, RELEASED, heads)
    assert round(needed_pairs(tokens, RELEASED, heads) / heads / tokens) == 1328
    assert computed <= 0.40 * heads * dense_pairs(tokens)
    assert computed <= 0.40 * heads * kernel_causal_pairs(tokens)


def test_the_registered_operator_is_sound() -> None:
    sparse, heads, keys, lengths = CASES["documents"]
    q, k, v, _ = inputs(heads, keys, sum(lengths), torch.float32)
    ints = (sparse.block, sparse.local_blocks, sparse.vertical_stride, sparse.same_heads)
    torch.library.opcheck(torch.ops.phial.blocksparse_attention.default, (q, k, v, document_bounds(runs_of(lengths)), *ints, 0.3))


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_compiles_without_a_graph_break_and_builds_no_mask(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Decoder(TINY_SMALL).layers[0].eval()
    runs_BT = runs_of([30, 34]) if packed else None
    visible = Visible(num_queries=64, num_keys=64, runs_BT=runs_BT)
    attend = start_pass("sdpa", TINY_SMALL, visible, torch.device("cpu"))
    assert attend.masks.sparse is None  # type: ignore[attr-defined]
    tables = (torch.ones(1, 1, 64, 8), torch.zeros(1, 1, 64, 8))
    x_BTD = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    stream = ONE_RANK.stream(x_BTD.shape[1])
    torch.testing.assert_close(
        compiled(x_BTD, tables, attend, None, stream), layer(x_BTD, tables, attend, None, stream), atol=1e-6, rtol=1e-6
    )


def test_what_does_not_fit_is_refused() -> None:
    sparse, heads, keys, lengths = CASES["documents"]
    q, k, v, _ = inputs(heads, keys, sum(lengths), torch.float32)
    with pytest.raises(ModelError, match="of one dtype"):
        blocksparse_attention(q, k.double(), v, document_bounds(runs_of(lengths)), sparse, 0.3)
    with pytest.raises(ModelError, match="N a multiple of K"):
        blocksparse_attention(q[:, :3], k, v, document_bounds(runs_of(lengths)), sparse, 0.3)
    with pytest.raises(ModelError, match="bounds must go from 0"):
        blocksparse_attention(q, k, v, torch.tensor([0, 5], dtype=torch.int32), sparse, 0.3)
