"""Packed attention equals plain float64 attention under the dense mask, forwards and backwards, and is one node for torch.compile."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from modeling.backends import start_pass
from modeling.backends.packed import CHUNK, packed_attention, pieces
from modeling.errors import ModelError
from modeling.layer import Layer
from modeling.parallel.stream import ONE_RANK
from modeling.presets import TINY
from modeling.rope import rotary_tables
from modeling.visible import Visible, dense_mask, document_bounds, document_positions

# Lengths of documents; 600 is longer than two chunks of a windowed document.
ROWS = {
    "one document": [[50]],
    "documents": [[1, 5, 30, 1, 13]],
    "single tokens": [[1] * 6],
    "several rows": [[1, 600, 30], [31, 599, 1]],
}


def runs_of(rows: list[list[int]]) -> Tensor:
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


def random_inputs(batch: int, tokens: int, heads: int, kv_heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as the attention block gives them: transposed views; and a gradient of the result."""
    made = [torch.randn(batch, tokens, count, 16, dtype=dtype).transpose(1, 2) for count in (heads, kv_heads, kv_heads, heads)]
    return [*(one.requires_grad_() for one in made[:3]), made[3]]


def plain(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, dy_BNTH: Tensor, runs_BT: Tensor, window: int, scale: float) -> list[Tensor]:
    """Attention in float64 under the dense mask, and its three gradients."""
    q, k, v = (x.detach().double().requires_grad_() for x in (q_BNTH, k_BKTH, v_BKTH))
    groups, tokens = q.shape[1] // k.shape[1], q.shape[2]
    visible = Visible(num_queries=tokens, num_keys=tokens, window_keys=window or None, runs_BT=runs_BT)
    scores = (q @ k.repeat_interleave(groups, 1).transpose(2, 3) * scale).masked_fill(~dense_mask(visible, q.device), -torch.inf)
    y = scores.softmax(-1) @ v.repeat_interleave(groups, 1)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), dy_BNTH.double())]


def ours(q: Tensor, k: Tensor, v: Tensor, dy: Tensor, bounds: Tensor, window: int, scale: float) -> list[Tensor]:
    y = packed_attention(q, k, v, bounds, window, scale)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), dy)]


def worst(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of the four tensors, relative in norm."""
    return max(((one.double() - other).norm() / (other.norm() + 1e-12)).item() for one, other in zip(results, expected, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [0, 1, 7, 300])
@pytest.mark.parametrize("rows", ROWS)
def test_forward_and_gradients_equal_plain_attention(rows: str, window: int, kv_heads: int, dtype: torch.dtype, bound: float) -> None:
    runs_BT = runs_of(ROWS[rows])
    inputs = random_inputs(*runs_BT.shape, 4, kv_heads, dtype)
    results = ours(*inputs, document_bounds(runs_BT), window, 0.3)
    # Where every query sees one key only, gradients of scores are zero but for rounding: there dy says what is small.
    expected = plain(*inputs, runs_BT, window, 0.3)
    for one, other in zip(results, expected, strict=True):
        assert (one.double() - other).norm() <= bound * (other.norm() or inputs[3].double().norm())
    assert all(one.dtype == dtype for one in results)


def test_a_wrong_bound_or_window_is_noticed() -> None:
    """The comparison above fails by far when one document begins a token early, or the window holds a key more or less."""
    runs_BT = runs_of([[20, 30]])
    inputs = random_inputs(1, 50, 4, 2, torch.float64)
    expected = plain(*inputs, runs_BT, 7, 0.3)
    assert worst(ours(*inputs, document_bounds(runs_BT), 7, 0.3), expected) < 1e-14
    assert worst(ours(*inputs, torch.tensor([0, 19, 50], dtype=torch.int32), 7, 0.3), expected) > 1e-2
    for window in (6, 8, 0):
        assert worst(ours(*inputs, document_bounds(runs_BT), window, 0.3), expected) > 1e-2


@pytest.mark.parametrize("window", [1, 21, 300])
def test_a_key_is_seen_by_exactly_window_queries_of_its_document(window: int) -> None:
    runs_BT = runs_of([[40, 700, 20]])
    q, k, v, _ = (x.detach() for x in random_inputs(1, 760, 2, 2, torch.float32))
    bounds = document_bounds(runs_BT)
    before = packed_attention(q, k, v, bounds, window, 0.3)
    for place in (0, 39, 40, 100, 40 + CHUNK, 739, 759):
        other_k, other_v = k.clone(), v.clone()
        other_k[:, :, place] += 1.0
        other_v[:, :, place] += 1.0
        changed = (packed_attention(q, other_k, other_v, bounds, window, 0.3) != before).any(-1).any(1)[0].nonzero().flatten()
        end = min(place + window, next(int(bound) for bound in bounds if bound > place))
        assert changed.tolist() == list(range(place, end))


def test_the_first_rows_documents_may_hold_for_every_row() -> None:
    runs_BT = runs_of([[20, 30]])
    inputs = random_inputs(3, 50, 4, 4, torch.float32)
    one = ours(*inputs, document_bounds(runs_BT), 0, 0.3)
    every = ours(*inputs, document_bounds(runs_BT.expand(3, -1)), 0, 0.3)
    assert all(torch.equal(*pair) for pair in zip(one, every, strict=True))


def test_work_grows_with_documents_not_rows() -> None:
    """Pairs looked at: the sum of squared lengths over documents, and at most window + chunk per query of a windowed one."""
    short = sum(piece.pairs for piece in pieces(list(range(0, 4097, 64)), 4096, 0))
    assert short == 64 * (64 * 65 // 2)
    whole = sum(piece.pairs for piece in pieces([0, 4096], 4096, 0))
    assert whole == 4096 * 4097 // 2
    windowed = sum(piece.pairs for piece in pieces([0, 4096], 4096, 128))
    assert windowed <= 4096 * (128 + CHUNK)


def test_pieces_hold_every_query_once() -> None:
    cuts = [0, 1, 600, 1000, 2000]
    for window in (0, 1, 5, 2000):
        found = [piece.row * 1000 + place for piece in pieces(cuts, 1000, window) for place in range(piece.first_query, piece.end)]
        assert found == list(range(2000))


@pytest.mark.parametrize("window", [0, 7])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_operator_keeps_torchs_contract(window: int, kv_heads: int) -> None:
    """Schema, fake tensors with the real ones' strides, autograd and dynamic shapes, by torch's own check."""
    runs_BT = runs_of([[10, 22, 8], [3, 30, 7]])
    q, k, v, _ = random_inputs(2, 40, 4, kv_heads, torch.float32)
    torch.library.opcheck(torch.ops.phial.packed_attention.default, (q, k, v, document_bounds(runs_BT), window, 0.25))


def test_results_are_stored_by_token() -> None:
    q, k, v, _ = random_inputs(1, 40, 4, 2, torch.float32)
    y = packed_attention(q, k, v, torch.tensor([0, 40], dtype=torch.int32), 0, 0.25)
    assert y.transpose(1, 2).is_contiguous()


def test_autocast_decides_the_dtype() -> None:
    q, k, v, _ = random_inputs(1, 40, 4, 2, torch.float32)
    bounds = torch.tensor([0, 15, 40], dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16):
        y = packed_attention(q, k, v.bfloat16(), bounds, 0, 0.25)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, packed_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), bounds, 0, 0.25))
    y.float().sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize("bounds", [[0, 10], [0, 20], [1, 10, 20], [0, 10, 10, 20], [0, 5, 20]])
def test_bounds_that_do_not_cut_the_rows_are_refused(bounds: list[int]) -> None:
    q, k, v, _ = random_inputs(2, 10, 2, 2, torch.float32)
    if bounds == [0, 10]:  # one row's bounds, for both: the one case of these that is right
        assert packed_attention(q, k, v, torch.tensor(bounds, dtype=torch.int32), 0, 0.25).shape == q.shape
        return
    with pytest.raises(ModelError, match="must grow from 0 to 20 and cut 2 rows of 10 tokens apart"):
        packed_attention(q, k, v, torch.tensor(bounds, dtype=torch.int32), 0, 0.25)


def layer_pass(layer, x_BTD: Tensor, lengths: list[int]) -> list[Tensor]:
    """A layer's output for a packed row, and the gradients of its input and parameters."""
    config = layer_config()
    runs_BT = runs_of([lengths])
    tables = rotary_tables(config, document_positions(runs_BT), "short", torch.float32)
    visible = Visible(num_queries=40, num_keys=40, window_keys=config.window_keys, runs_BT=runs_BT)
    y_BTD = layer(x_BTD, tables, start_pass("sdpa", config, visible, x_BTD.device), None, ONE_RANK.stream(40))
    return [y_BTD.detach(), *torch.autograd.grad(y_BTD.square().sum(), [x_BTD, *layer.parameters()])]


def layer_config():
    return dataclasses.replace(TINY, num_layers=1)


def test_a_compiled_layer_has_no_graph_break_and_compiles_once() -> None:
    """`fullgraph` raises at a break; rows cut into other numbers of documents go through the same graph."""
    layer = Layer(layer_config(), 0)
    x_BTD = torch.randn(1, 40, layer_config().hidden_size, requires_grad=True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in ([10, 22, 8], [40], [1] * 40, [30, 10], [5, 5, 5, 25]):
        for one, other in zip(layer_pass(compiled, x_BTD, lengths), layer_pass(layer, x_BTD, lengths), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_the_layer_makes_no_dense_mask_for_packed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args, **_kwargs) -> Tensor:
        raise AssertionError("a dense mask was made")

    monkeypatch.setattr("modeling.backends.masks.dense_mask", fail)
    layer = Layer(layer_config(), 0)
    x_BTD = torch.randn(1, 40, layer_config().hidden_size, requires_grad=True)
    layer_pass(layer, x_BTD, [10, 22, 8])
    with pytest.raises(AssertionError, match="a dense mask was made"):
        start_pass("eager", layer_config(), Visible(num_queries=40, num_keys=40, runs_BT=runs_of([[10, 30]])), x_BTD.device)


def test_documents_cover_the_row() -> None:
    assert [end - begin for begin, end in pairwise(document_bounds(runs_of([[3, 7]])).tolist())] == [3, 7]
