"""The Fourier neural operator: neuraloperator's numbers from its weights, many ranks against one, its Taylor remainder, its losses."""

import math
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import Group
from modeling.parallel.partition import balanced
from modeling.parallel.weights import collect, fill
from modeling.surrogate import fno as fno_module
from modeling.surrogate.config import FNOConfig
from modeling.surrogate.fno import FNO
from modeling.surrogate.losses import relative_h1, relative_l2
from modeling.surrogate.neuraloperator_weights import config_of, from_neuraloperator, names, to_neuraloperator
from tests.modeling.parallel.operator_cases import group_of
from tests.modeling.surrogate.fno_cases import BATCH, MODELS, WIDTH, fields, mine, model, squared_error
from tests.ranks import RankError, Ranks

BOUND = 1e-11


def close(name: str, ours: Tensor, theirs: Tensor, bound: float) -> None:
    """Relative in norm."""
    assert ours.shape == theirs.shape, f"{name}: {list(ours.shape)} for {list(theirs.shape)}"
    error = (ours - theirs).norm() / theirs.norm().clamp(min=1e-30) if theirs.numel() else 0.0
    assert error <= bound, f"{name} differs by {error:.3g} of its norm"


# Against neuraloperator.


def theirs_of(**settings: Any) -> Any:
    """neuraloperator's FNO, seeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = pytest.importorskip("neuralop.models", reason="neuraloperator is not installed: pip install neuraloperator==2.0.0")
    torch.manual_seed(3)
    return models.FNO(in_channels=2, out_channels=3, **settings)


def ours_from(theirs: Any) -> FNO:
    state = theirs.state_dict()
    found = FNO(config_of(state["_metadata"]))
    fill(found, from_neuraloperator(found.config, state))
    return found


# Dims whose length is odd and cut are left out: neuraloperator moves the spectrum back by fftshift, which is its own inverse for even
# lengths alone, so that its frequencies are off by one there. The dense matrices of test_fourier.py stand in for it.
@pytest.mark.parametrize(
    ("modes", "sizes", "hidden"),
    [
        ((16, 16), (16, 16), 32),
        ((16, 16), (32, 32), 32),
        ((7, 6), (16, 13), 8),
        ((4, 4, 5), (8, 6, 9), 8),
        ((4, 2, 4, 4), (4, 4, 6, 5), 6),
    ],
)
def test_neuraloperators_weights_give_its_outputs_and_gradients(modes: tuple[int, ...], sizes: tuple[int, ...], hidden: int) -> None:
    theirs = theirs_of(n_modes=modes, hidden_channels=hidden)
    ours = ours_from(theirs)
    x = torch.randn(2, 2, *sizes)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(x_ours), theirs(x_theirs)
    close("output", y, expected, 1e-6)
    dy = torch.randn_like(y)
    y.backward(dy)
    expected.backward(dy)
    assert x_ours.grad is not None
    close("gradient of the input", x_ours.grad, x_theirs.grad, 1e-5)
    gradients = dict(from_neuraloperator(ours.config, {name: one.grad for name, one in theirs.named_parameters()}))
    for name, one in ours.named_parameters():
        assert one.grad is not None
        close(f"gradient of {name}", one.grad, gradients[name], 1e-5)
    state = theirs.state_dict()
    back = to_neuraloperator(ours.config, dict(ours.named_parameters()))
    assert all(torch.equal(state[name], back[name]) for name in state if name != "_metadata")


@pytest.mark.parametrize(
    "settings", [{"positional_embedding": None}, {"channel_mlp_expansion": 1.0, "lifting_channel_ratio": 1, "n_layers": 1}]
)
def test_other_settings_of_neuraloperator(settings: dict[str, Any]) -> None:
    theirs = theirs_of(n_modes=(4, 4), hidden_channels=8, **settings)
    x = torch.randn(2, 2, 6, 6)
    close("output", ours_from(theirs)(x), theirs(x), 1e-6)


def test_the_published_size() -> None:
    """602,977 parameters, a complex number counting once as in neuraloperator."""
    config = FNOConfig(modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32)
    assert config.num_parameters == sum(one.numel() for one in FNO(config).parameters()) == 602_977


def test_what_neuraloperator_has_and_we_have_not_is_named() -> None:
    sizes = {"n_modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4}
    for wrong in ({"norm": "group_norm"}, {"factorization": "tucker"}, {"fno_skip": "identity"}):
        with pytest.raises(ModelError, match=f"{next(iter(wrong))}=.* is not supported"):
            config_of({**sizes, **wrong})
    with pytest.raises(ModelError, match="positional_embedding"):
        config_of({**sizes, "positional_embedding": object()})
    config = config_of(sizes)
    state = to_neuraloperator(config, dict(FNO(config).named_parameters()))
    with pytest.raises(ModelError, match=r"hold extra, which"):
        list(from_neuraloperator(config, {**state, "extra": torch.ones(1)}))
    state.pop(names(config)["lifting.first.bias"])
    with pytest.raises(ModelError, match=r"lack lifting\.fcs\.0\.bias"):
        list(from_neuraloperator(config, state))


@pytest.mark.parametrize("sizes", [(16,), (8, 12), (4, 6, 8)])
def test_losses_are_neuraloperators(sizes: tuple[int, ...]) -> None:
    losses = pytest.importorskip("neuralop.losses", reason="neuraloperator is not installed: pip install neuraloperator==2.0.0")
    y, target = torch.randn(2, 3, 2, *sizes, dtype=torch.float64)
    dims = len(sizes)
    torch.testing.assert_close(relative_l2(y, target).sum(), losses.LpLoss(d=dims, p=2)(y, target), rtol=1e-12, atol=0)
    torch.testing.assert_close(relative_h1(y, target).sum(), losses.H1Loss(d=dims)(y, target), rtol=1e-12, atol=0)
    with pytest.raises(ModelError, match="of one shape"):
        relative_l2(y, target[:, :1])


# One rank.


def test_the_taylor_remainder() -> None:
    """|L(w + h d) - L(w)| falls with slope 1 in h, and with its gradient taken off with slope 2, over six halvings."""
    for name in MODELS:
        fno = model(name)
        x, target = fields(name, 2, 1), fields(name, 3, 2)
        point = [one.detach().clone() for one in fno.parameters()]
        ways = [torch.randn_like(one) for one in point]
        loss = squared_error(fno, fno(x), target)
        loss.backward()
        slope = sum((one.grad.conj() * way).real.sum() for one, way in zip(fno.parameters(), ways, strict=True))  # type: ignore[union-attr]
        remainders: list[tuple[float, float]] = []
        steps = [0.002 / 2**halving for halving in range(7)]
        for h in steps:
            with torch.no_grad():
                for one, at, way in zip(fno.parameters(), point, ways, strict=True):
                    one.copy_(at + h * way)
                moved = squared_error(fno, fno(x), target) - loss
            remainders.append((abs(moved.item()), abs((moved - h * slope).item())))
        for order in (1, 2):
            found = [math.log2(one[order - 1] / other[order - 1]) for one, other in pairwise(remainders)]
            assert all(abs(rate - order) < 0.1 for rate in found), f"{name}: slopes {found}, expected {order}"


def test_one_rank_sends_nothing_and_takes_any_grid() -> None:
    fno = model("2-D")
    with recording() as ledger:
        for sizes in (MODELS["2-D"][1], (4, 8), (11, 12)):
            y = fno(torch.randn(1, 2, *sizes, dtype=torch.float64))
            assert y.shape == (1, 3, *sizes)
            y.sum().backward()
    assert ledger.calls == []


def test_a_field_on_a_finer_grid_is_the_same_field() -> None:
    """Without the pointwise nonlinearities' aliasing: a convolution alone does not see the grid."""
    from modeling.parallel.fourier import FourierTransform, SpectralConv
    from modeling.parallel.fourier_plan import plan_fourier
    from modeling.parallel.mesh import ALONE

    conv = SpectralConv(1, 1, (5, 4), dtype=torch.float64)
    values = []
    for n in (8, 16):
        points = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
        field = torch.cos(points)[:, None] + torch.sin(points + 1)[None, :] * torch.sin(2 * points)[:, None]
        y = conv(field[..., None, None], FourierTransform(ALONE, plan_fourier((n, n), (5, 4), 1)))
        values.append(y[:: n // 8, :: n // 8])
    close("field", values[0], values[1], 1e-14)


def test_bad_input_is_one_line() -> None:
    fno = model("2-D")
    for bad in (torch.zeros(1, 1, 6, 9), torch.zeros(1, 2, 6, 9, 1)):
        with pytest.raises(ModelError, match=r"must be \(batch, 2 channels, 2 dims\)"):
            fno(bad)
    with pytest.raises(ModelError, match="dim 0 of the field 3 x 9 has 3 points; 4 modes"):
        fno(torch.zeros(1, 2, 3, 9))
    with pytest.raises(ModelError, match="over 2 ranks the field's sizes must be given"):
        FNO(fno.config, group=Group((0, 1), 0))
    with pytest.raises(ModelError, match="the model has modes="):
        FNO(fno.config, plan=model("2-D, short").plan)
    for wrong, said in (
        ({"modes": ()}, "per dim"),
        ({"modes": (4, 0)}, "at least 1"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio=0.01 of 4 hidden"),
    ):
        settings: dict[str, Any] = {"modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4, **wrong}
        with pytest.raises(ModelError, match=said):
            FNOConfig(**settings)


# Many ranks.


def agrees(count: int, name: str, twice: bool = False) -> None:
    """Outputs, gradients of the input and of every parameter, and bytes; also on a grid that was not planned for."""
    one, many = model(name), model(name, count)
    results = []
    for fno in (one, many):
        x = mine(fno, fields(name, 2, 1)).clone().requires_grad_()
        with recording() as ledger:
            y = fno(x)
        with recording() as back:
            y.backward(mine(fno, fields(name, 3, 2)))
        results.append((y.detach(), x.grad))
    assert all(grad is not None for _, grad in results)
    for what, ours, theirs in zip(("output", "gradient of the input"), results[1], results[0], strict=True):
        close(what, ours, mine(many, theirs), BOUND)  # type: ignore[arg-type]
    group, expected = group_of(count), dict(one.named_parameters())
    for key, gradient in collect(many, group, ((key, each.grad) for key, each in many.named_parameters())):  # type: ignore[misc]
        close(f"gradient of {key}", gradient, expected[key].grad, BOUND)  # type: ignore[arg-type]
    layers = many.config.num_layers
    assert ledger.total().bytes == layers * many.plan.bytes_sent(group.index, BATCH, WIDTH, WIDTH, 16)
    assert back.total("Repartition") == ledger.total()
    # The gradients of all pointwise weights in one sum, of shares that are balanced once.
    elements = sum(one.numel() for one in many.pointwise)
    share = balanced(elements, count)[group.index]
    summed = {1: 0, 2: 8 * elements}.get(count, 8 * (elements - share + (count - 1) * share))
    assert back.total().bytes - back.total("Repartition").bytes == summed
    finer = tuple(size + 1 for size in MODELS[name][1])
    field = torch.randn(1, 2, *finer, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    box = many.transform(finer).field_box
    at = (..., *(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))
    with torch.no_grad():
        close("finer grid", many(field[at], finer), one(field)[at], BOUND)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_many_ranks(ranks: Ranks, count: int, name: str) -> None:
    ranks(count, agrees, count, name)


def unsummed(count: int) -> None:
    """Weights used on every rank's part without a Broadcast: each rank has its own gradient of them."""
    plain = fno_module.Broadcast
    fno_module.Broadcast = lambda group: plain(Group((0,), 0))  # type: ignore[assignment, misc]
    try:
        agrees(count, "2-D")
    finally:
        fno_module.Broadcast = plain


def test_gradients_that_are_not_summed_are_caught(ranks: Ranks) -> None:
    with pytest.raises(RankError, match="gradient of lifting"):
        ranks(2, unsummed, 2)


def train(fno: FNO, name: str, steps: int) -> list[float]:
    """AdamW steps towards channels that are sums of the input's."""
    optimizer = torch.optim.AdamW(fno.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for step in range(steps):
        x = fields(name, 2, 100 + step)
        target = torch.cat((x, x[:, :1] + x[:, 1:]), 1)
        optimizer.zero_grad()
        loss = squared_error(fno, fno(mine(fno, x)), mine(fno, target))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trains_alike(count: int, name: str) -> tuple[list[float], list[float]]:
    return train(model(name), name, 50), train(model(name, count), name, 50)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("2-D", 2), ("2-D", 4), ("3-D", 4), ("3-D and time", 3)])
def test_fifty_steps(ranks: Ranks, name: str, count: int) -> None:
    for one, many in ranks(count, trains_alike, count, name):
        assert max(abs(a - b) for a, b in zip(one, many, strict=True)) <= 1e-10
        assert many[-1] < 0.7 * many[0]
