"""The decoder over ranks in bfloat16: as near to float32 on one rank as bfloat16 on one rank is, within a factor."""

import pytest
import torch
from torch import Tensor

from modeling.decoder import Decoder
from modeling.parallel.gradients import sum_gradients
from modeling.parallel.stream import ContextWay
from modeling.parallel.weights import collect
from tests.modeling.parallel.decoder_cases import decoder_over, rows, whole_decoder
from tests.ranks import Ranks

Axes = tuple[tuple[str, int], ...]


def gradients(decoder: Decoder, dtype: torch.dtype, autocast: bool) -> dict[str, Tensor]:
    """Whole gradients and the loss, in float64."""
    ids_BT, targets_BT, documents_BT = rows(3, True)
    decoder = decoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = decoder.loss(ids_BT, targets_BT, documents_BT=documents_BT)
    loss.backward()
    sum_gradients(decoder.parameters(), decoder.parallel.context_group)
    found = {"loss": loss.detach().double()}
    grads = ((name, one.grad) for name, one in decoder.named_parameters())
    return found | {name: one.double() for name, one in collect(decoder, decoder.parallel.tensor_group, grads)}  # type: ignore[arg-type]


def as_near(axes: Axes, sequence: bool, way: ContextWay, autocast: bool) -> None:
    exact = gradients(whole_decoder("window"), torch.float64, False)
    dtype = torch.float32 if autocast else torch.bfloat16
    one = gradients(whole_decoder("window"), dtype, autocast)
    many = gradients(decoder_over("window", axes, sequence, way), dtype, autocast)
    for name, wanted in exact.items():
        allowed = 3 * (one[name] - wanted).norm() + 3e-3 * wanted.norm()
        error = (many[name] - wanted).norm()
        assert error <= allowed, f"{name}: {error:.3g} from the exact one where one rank is {(one[name] - wanted).norm():.3g}"


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("axes", "sequence", "way"),
    [
        ((("tensor", 3),), False, "ulysses"),
        ((("tensor", 3),), True, "ulysses"),
        ((("context", 3),), False, "ring"),
        ((("context", 3),), False, "halo"),
        ((("context", 3),), False, "ulysses"),
    ],
)
def test_bfloat16(ranks: Ranks, axes: Axes, sequence: bool, way: ContextWay, autocast: bool) -> None:
    ranks(3, as_near, axes, sequence, way, autocast)
