"""A decoder over several ranks against the same one on one rank, float64: logits, loss, and every gradient, whole.

The first tests localise a fault in one kind of parallelism; the last train compositions for 50 steps.
"""

import pytest
import torch
from torch import Tensor

from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.parallel.gradients import sum_gradients
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.stream import ContextWay, Parallel
from modeling.parallel.weights import collect
from tests.modeling.parallel.decoder_cases import CONFIGS, TOKENS, decoder_over, mesh_of, rows, whole_decoder
from tests.ranks import Ranks

BOUND = 1e-11
Axes = tuple[tuple[str, int], ...]


def tensor(count: int) -> Axes:
    return (("tensor", count),)


def context(count: int) -> Axes:
    return (("context", count),)


def close(name: str, ours: Tensor, theirs: Tensor, bound: float = BOUND) -> None:
    """Relative in norm."""
    ours, theirs = torch.nan_to_num(ours, neginf=0.0), torch.nan_to_num(theirs, neginf=0.0)
    error = (ours - theirs).norm() / theirs.norm().clamp(min=1e-30)
    assert error <= bound, f"{name} differs by {error:.3g} of its norm"


def whole_gradients(decoder: Decoder) -> dict[str, Tensor]:
    """Summed over ranks that see other tokens, joined over ranks that hold other parts."""
    parallel = decoder.parallel
    sum_gradients(decoder.parameters(), parallel.context_group)
    grads = ((name, parameter.grad) for name, parameter in decoder.named_parameters())
    return dict(collect(decoder, parallel.tensor_group, grads))  # type: ignore[arg-type]


def agree(name: str, axes: Axes, sequence: bool, way: ContextWay, packed: bool, recompute: str = "none", attention: str = "sdpa") -> None:
    """Logits under a random incoming gradient, then the loss with z-loss."""
    ids_BT, targets_BT, documents_BT = rows(3, packed)
    for what in ("logits", "loss"):
        one, many = whole_decoder(name, attention), decoder_over(name, axes, sequence, way, recompute, attention)
        results = []
        for decoder in (one, many):
            if what == "logits":
                y = decoder(ids_BT, documents_BT=documents_BT)
                dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
                torch.nan_to_num(y, neginf=0.0).backward(dy)
            else:
                y = decoder.loss(ids_BT, targets_BT, documents_BT=documents_BT, z_loss=0.01, chunk_tokens=8)
                y.backward()
            results.append(y.detach())
        bound = BOUND if attention == "sdpa" else 1e-6  # written-out attention takes its softmax in float32
        close(what, results[1], results[0], bound)
        expected = {key: parameter.grad for key, parameter in one.named_parameters()}
        for key, gradient in whole_gradients(many).items():
            close(f"{what}: gradient of {key}", gradient, expected[key], bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "small"])
def test_tensor_parallel(ranks: Ranks, name: str, count: int, sequence: bool) -> None:
    ranks(count, agree, name, tensor(count), sequence, "ulysses", True)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("sequence", [False, True])
def test_phi3_small_over_tensor_ranks(ranks: Ranks, count: int, sequence: bool) -> None:
    ranks(count, agree, "small", tensor(count), sequence, "ulysses", True)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("grouped", "ulysses"),
        ("few heads", "ulysses"),
        ("window", "ulysses"),
        ("window", "halo"),
        ("window", "ring"),
        ("plain", "ring"),
        ("few keys", "ring"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_context_parallel(ranks: Ranks, name: str, way: ContextWay, count: int, packed: bool) -> None:
    ranks(count, agree, name, context(count), False, way, packed)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("axes", [(("context", 2),), (("context", 4),), (("context", 2), ("tensor", 2))])
def test_phi3_small_over_context_ranks(ranks: Ranks, axes: Axes, attention: str) -> None:
    """Blocksparse heads keep their own blocks wherever they are computed; a dense mask is made for the heads of a rank alone."""
    count = 4 if axes != (("context", 2),) else 2
    ranks(count, agree, "small", axes, True, "ulysses", True, "none", attention)


def agrees_written_out(axes: Axes) -> None:
    """The blocks as other devices compute them."""
    from modeling.parallel import ring

    before = ring.has_flash
    ring.has_flash = lambda q: False
    try:
        agree("window", axes, False, "ring", True)
        agree("few keys", axes, False, "ring", False)
    finally:
        ring.has_flash = before


def test_a_ring_whose_blocks_are_written_out(ranks: Ranks) -> None:
    ranks(3, agrees_written_out, context(3))


@pytest.mark.parametrize("way", ["ulysses", "ring", "halo"])
@pytest.mark.parametrize("sequence", [False, True])
def test_tensor_and_context_together(ranks: Ranks, way: ContextWay, sequence: bool) -> None:
    ranks(4, agree, "window", (("context", 2), ("tensor", 2)), sequence, way, True)
    ranks(4, agree, "window", (("tensor", 2), ("context", 2)), sequence, way, False)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_sends_again_and_changes_nothing(ranks: Ranks, recompute: str) -> None:
    ranks(4, agree, "grouped", (("context", 2), ("tensor", 2)), True, "ulysses", True, recompute)


def train(decoder: Decoder, group: Group, rank_rows: tuple[int, int], steps: int) -> list[float]:
    """Losses of AdamW steps on rows whose first ones are copied by counting; this data rank takes rows [first, last)."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3, weight_decay=0.1)
    losses = []
    first, last = rank_rows
    for step in range(steps):
        ids_BT, targets_BT, documents_BT = rows(100 + step, packed=True, batch=4)
        targets_BT = torch.where(targets_BT < 0, targets_BT, 4 + (ids_BT - 3) % 32)
        share = (targets_BT[first:last] != -100).sum() / (targets_BT != -100).sum()
        assert documents_BT is not None
        loss = decoder.loss(ids_BT[first:last], targets_BT[first:last], documents_BT=documents_BT[first:last]) * share
        loss.backward()
        sum_gradients(decoder.parameters(), group)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    from modeling.parallel.sums import SumReduce

    data = decoder.parallel.mesh.group("data")
    return SumReduce(data)(torch.stack(losses)).tolist()


def trains_alike(name: str, axes: Axes, sequence: bool, way: ContextWay) -> None:
    mesh = mesh_of(axes)
    data = mesh.size("data")
    each = 4 // data
    first = mesh.coordinate("data") * each
    many = train(decoder_over(name, axes, sequence, way), mesh.group("data", "context"), (first, first + each), 50)
    one = train(whole_decoder(name), Group((0,), 0), (0, 4), 50)
    worst = max(abs(a - b) for a, b in zip(one, many, strict=True))
    assert worst <= 1e-10, f"losses differ by {worst}"
    assert one[-1] < 0.9 * one[0], f"nothing was learnt: {one[0]} to {one[-1]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "axes", "sequence", "way"),
    [
        ("grouped", (("tensor", 4),), True, "ulysses"),
        ("window", (("context", 2), ("tensor", 2)), True, "halo"),
        ("plain", (("data", 2), ("context", 2)), False, "ring"),
        ("small", (("data", 2), ("tensor", 2)), True, "ulysses"),
        ("window", (("data", 1), ("context", 2), ("tensor", 2)), False, "ulysses"),
    ],
)
def test_fifty_steps_are_those_of_one_rank(ranks: Ranks, name: str, axes: Axes, sequence: bool, way: ContextWay) -> None:
    ranks(4, trains_alike, name, axes, sequence, way)


def forgets_the_sum(name: str) -> None:
    """Without `sum_gradients` each rank has its own tokens' gradient only."""
    ids_BT, targets_BT, documents_BT = rows(3, True)
    one, many = whole_decoder(name), decoder_over(name, (("context", 2),), False, "ulysses")
    for decoder in (one, many):
        decoder.loss(ids_BT, targets_BT, documents_BT=documents_BT).backward()
    with pytest.raises(AssertionError, match="differs by"):
        close("gradient", many.layers[0].attention.qkv.weight.grad, one.layers[0].attention.qkv.weight.grad)  # type: ignore[union-attr, arg-type]


def test_a_gradient_that_is_not_summed_is_noticed(ranks: Ranks) -> None:
    ranks(2, forgets_the_sum, "grouped")


def refusals() -> None:
    pair = Mesh({"tensor": 2})
    long = Mesh({"context": 2})
    from dataclasses import replace

    with pytest.raises(ModelError, match="dropout over several ranks"):
        Decoder(replace(CONFIGS["plain"], embedding_dropout=0.1), parallel=Parallel(pair))
    with pytest.raises(ModelError, match="decoders with a window"):
        Decoder(CONFIGS["plain"], parallel=Parallel(long, context="halo"))
    with pytest.raises(ModelError, match="no blocksparse layers"):
        Decoder(CONFIGS["small"], parallel=Parallel(long, context="ring"))
    with pytest.raises(ModelError, match="no context parallelism 'star'"):
        Parallel(long, context="star")  # type: ignore[arg-type]
    small = CONFIGS["small"]
    assert small.blocksparse is not None
    with pytest.raises(ModelError, match="multiple of vertical_stride=8"):
        Decoder(replace(small, blocksparse=replace(small.blocksparse, vertical_stride=8)), parallel=Parallel(pair))
    for way in ("ring", "halo"):
        with pytest.raises(ModelError, match="has kernels of its own, named sdpa; 'eager' is for 'ulysses'"):
            Decoder(CONFIGS["window"], attention="eager", parallel=Parallel(long, context=way))  # type: ignore[arg-type]
    decoder = Decoder(CONFIGS["plain"], parallel=Parallel(pair))
    good = torch.zeros(1, 2, dtype=torch.long)
    for bad in (37, -1):
        with pytest.raises(RuntimeError, match="a token id is outside the vocabulary of 37"):
            decoder(good.fill_(bad))
    with pytest.raises(RuntimeError, match="a target is outside the vocabulary of 37"):
        decoder.loss(torch.zeros(1, 2, dtype=torch.long), torch.full((1, 2), 37))
    from modeling.kv_cache import KVCache

    decoder = Decoder(CONFIGS["plain"], parallel=Parallel(pair))
    with pytest.raises(ModelError, match="cache is for one rank"):
        decoder(torch.zeros(1, 2, dtype=torch.long), cache=KVCache(CONFIGS["plain"], 1, 8))


def irregular_heads() -> None:
    """Three query heads of two key heads on a rank, dealt again to two: their blocks would be others'."""
    from dataclasses import replace

    small = replace(CONFIGS["small"], num_heads=6, num_kv_heads=3, hidden_size=24)
    with pytest.raises(ModelError, match="multiple of vertical_stride"):
        Decoder(small, parallel=Parallel(mesh_of((("context", 2), ("tensor", 2)))))


def test_blocksparse_heads_that_fall_apart_are_refused(ranks: Ranks) -> None:
    ranks(4, irregular_heads)


def joins_what_lies_on_one(count: int) -> None:
    """One rank holds everything because the others have nothing of it; all take part in joining it."""
    from modeling.parallel.linear import ParallelLinear

    group = mesh_of(tensor(count)).group("tensor")
    layer = ParallelLinear(3, 1, out_group=group)
    whole = dict(collect(layer, group, ((name, one.detach()) for name, one in layer.named_parameters())))
    assert {name: tuple(one.shape) for name, one in whole.items()} == {"weight": (1, 3), "bias": (1,)}


def test_joining_waits_for_nobody(ranks: Ranks) -> None:
    ranks(2, joins_what_lies_on_one, 2)


def test_what_cannot_be_is_refused_in_one_line(ranks: Ranks) -> None:
    ranks(2, refusals)


def test_tokens_of_a_row() -> None:
    """Every token on one rank, early and late ones together in a ring."""
    from modeling.parallel.context_tokens import share_tokens

    group = Group((0, 1, 2), 0)
    for zigzag in (False, True):
        for tokens in (2, 7, TOKENS):
            shares = share_tokens(tokens, group, zigzag)
            assert sorted(int(one) for share in shares for one in share.indices()) == list(range(tokens))
    even = share_tokens(24, group, True)
    pairs = [sum(int(one) + 1 for one in share.indices()) for share in even]
    assert max(pairs) - min(pairs) == 0
