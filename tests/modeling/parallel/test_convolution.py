"""Convolution over ranks against torch's: parts of the field, of the channels, and of both, under random windows."""

from collections.abc import Sequence
from random import Random

import pytest
import torch
from torch import nn

from modeling.errors import ModelError
from modeling.parallel import convolution
from modeling.parallel.convolution import ParallelConv
from modeling.parallel.field import Field
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import ALONE, alone
from modeling.parallel.moves import halo
from modeling.parallel.operator import Chain
from modeling.parallel.sums import Broadcast
from modeling.parallel.window import Window, blocks, halo_widths
from tests.modeling.parallel.field_cases import RANKS, Part, agree, field_over, random
from tests.ranks import Ranks

TORCH = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
Sizes = tuple[int, ...]


def draw(rng: Random, dims: int) -> dict[str, Sizes]:
    """A window and a field that it fits into. Sizes go from fewer points than ranks to several per rank."""
    kernel = tuple(rng.randint(1, 4) for _ in range(dims))
    dilation = tuple(rng.randint(1, 3) for _ in range(dims))
    padding = tuple(rng.randint(0, 4) for _ in range(dims))
    stride = tuple(rng.randint(1, 4) for _ in range(dims))
    least = [Window(k, s, p, d).span - 2 * p for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)]
    size = tuple(max(1, low) + rng.randint(0, 9 if dims < 3 else 4) for low in least)
    return {"size": size, "kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def agrees(count: int, settings: dict[str, Sizes], channels: tuple[int, int], bias: bool, split: dict[str, int]) -> None:
    """`split` says over how many ranks input and output channels and samples are cut; the others cut the points."""
    settings = dict(settings)
    size = settings.pop("size")
    field = field_over(count, size, split.get("batch", 1), **{name: split[name] for name in ("in", "out") if name in split})
    ins, outs = field.mesh.group("in"), field.mesh.group("out")
    many = ParallelConv(*channels, field=field, bias=bias, in_group=ins, out_group=outs, dtype=torch.float64, **settings)
    one = TORCH[len(size)](*channels, bias=bias, dtype=torch.float64, **settings)
    agree(many, one, random(2, channels[0], *size), Part(field, ins), Part(many.output, outs))


def sweep(count: int, dims: int, cases: int, splits: Sequence[dict[str, int]]) -> None:
    rng = Random(100 * count + dims)
    for number in range(cases):
        settings = draw(rng, dims)
        # Up to 3 channels on each side are fewer than the ranks over them now and then.
        channels, bias = (rng.randint(1, 3), rng.randint(1, 5)), rng.random() < 0.7
        split = splits[number % len(splits)]
        try:
            agrees(count, settings, channels, bias, split)
        except Exception as error:
            raise AssertionError(f"{settings} with channels {channels}, bias {bias}, split {split}: {error}") from error


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("count", RANKS)
def test_parts_of_the_field(ranks: Ranks, count: int, dims: int) -> None:
    ranks(count, sweep, count, dims, 20, [{}])


@pytest.mark.parametrize(
    ("count", "splits"),
    [
        (2, [{"in": 2}, {"out": 2}]),
        (3, [{"in": 3}, {"out": 3}]),
        (4, [{"in": 2, "out": 2}, {"in": 4}, {"out": 4}]),
    ],
)
def test_parts_of_the_channels(ranks: Ranks, count: int, splits: list[dict[str, int]]) -> None:
    for dims in (1, 2):
        ranks(count, sweep, count, dims, 6, splits)


def test_parts_of_both_and_of_the_samples(ranks: Ranks) -> None:
    for dims in (1, 2, 3):
        ranks(4, sweep, 4, dims, 9, [{"in": 2}, {"out": 2}, {"batch": 2}])
    ranks(2, sweep, 2, 2, 2, [{"batch": 2}])


def chosen(count: int) -> None:
    """Halos that reach past a neighbour, are negative on the right or on both sides, and windows that see padding alone."""
    for size, kernel, stride, padding, dilation in (
        (9, 7, 1, 3, 1),
        (5, 4, 1, 6, 1),
        (16, 1, 3, 0, 1),
        (17, 2, 5, 0, 1),
        (13, 3, 4, 1, 2),
        (3, 3, 1, 1, 1),
        (2, 1, 1, 0, 1),
        (40, 2, 9, 0, 1),
        (12, 2, 2, 0, 1),
    ):
        settings = {"size": (size,), "kernel_size": (kernel,), "stride": (stride,), "padding": (padding,), "dilation": (dilation,)}
        agrees(count, settings, (2, 3), True, {})


@pytest.mark.parametrize("count", RANKS)
def test_chosen_windows(ranks: Ranks, count: int) -> None:
    ranks(count, chosen, count)


def uneven_input(count: int) -> None:
    """The blocks of the input need not be balanced."""
    field = field_over(count, (7, 6))
    rows = {1: (7,), 2: (7,), 3: (1, 0, 6), 4: (6, 1)}[count]
    columns = {1: (6,), 2: (1, 5), 3: (6,), 4: (0, 6)}[count]
    field = Field(field.mesh, field.size, field.axes, lengths=(rows, columns))
    many = ParallelConv(2, 3, 3, field, padding=1, stride=(2, 1), dtype=torch.float64)
    one = nn.Conv2d(2, 3, 3, padding=1, stride=(2, 1), dtype=torch.float64)
    agree(many, one, random(2, 2, 7, 6), Part(field, field.mesh.group()), Part(many.output, field.mesh.group()))


@pytest.mark.parametrize("count", RANKS)
def test_blocks_of_the_input_of_any_length(ranks: Ranks, count: int) -> None:
    ranks(count, uneven_input, count)


def ledgered() -> None:
    """A 3 x 3 convolution over 2 x 2 ranks sends a row of 3, then a column of 4 with the corner's row and the padding's one; windows that
    end where the parts do send nothing."""
    field = field_over(4, (8, 6))
    x = torch.zeros(1, 5, 4, 3, dtype=torch.float64)
    with recording() as ledger:
        ParallelConv(5, 2, 3, field, padding=1, dtype=torch.float64)(x)
    assert ledger.total().bytes == 8 * 5 * (3 + 6)
    assert ledger.total().messages == 2
    with recording() as ledger:
        ParallelConv(5, 2, 1, field, dtype=torch.float64)(x)
        ParallelConv(5, 2, 2, field_over(4, (8, 4)), stride=2, dtype=torch.float64)(x[..., :2])
    assert ledger.total().bytes == 0


def test_what_is_sent(ranks: Ranks) -> None:
    ranks(4, ledgered)


def widths_of(layer: ParallelConv) -> list[tuple[tuple[int, int], ...]]:
    """Of each dim, every member's halo."""
    cuts = zip(layer.over.windows, layer.field.lengths, layer.output.lengths, strict=True)
    return [halo_widths(ins, [window.reach(block) for block in blocks(outs)]) for window, ins, outs in cuts]


def ghosts_ignored(layer: ParallelConv) -> None:
    """Zeros in place of the neighbours' edges: the right shape, wrong values."""
    members = [group.index for group in layer.field.groups]
    mine = [widths[member] for widths, member in zip(widths_of(layer), members, strict=True)]
    layer.enter = lambda x: nn.functional.pad(x, [*mine[1], *mine[0]])  # type: ignore[assignment]


def weights_not_spread(layer: ParallelConv) -> None:
    """Every rank keeps its own part's gradient."""
    layer.spread = Broadcast(ALONE)


def bias_before_the_sum(layer: ParallelConv) -> None:
    """Once per rank of the input channels."""
    convolve = layer.convolve
    leave, layer.leave = layer.leave, Broadcast(ALONE)  # type: ignore[assignment]
    layer.convolve = lambda x, weight, bias: leave(convolve(x, weight, bias))  # type: ignore[method-assign]


def padded_at_every_border(layer: ParallelConv) -> None:
    """Each part padded as if it were a whole field."""
    layer.enter = Chain([Broadcast(ALONE)])
    layer.over.padding = (1, 1)


def shifted_by_one(layer: ParallelConv) -> None:
    """An unbalanced start index: each part's window begins one too early."""
    moved = [[(left + 1, right - 1) for left, right in one] for one in widths_of(layer)]
    layer.enter = halo(layer.field.groups, [2, 3], layer.field.lengths, moved, zeros=True)  # type: ignore[assignment]


FAULTS = {
    "ghosts ignored": (ghosts_ignored, {}, "output differs"),
    "weights not spread": (weights_not_spread, {}, "gradient of weight differs"),
    "padded at every border": (padded_at_every_border, {}, "output differs"),
    "shifted by one": (shifted_by_one, {}, "output differs"),
    "bias before the sum": (bias_before_the_sum, {"in": 2, "out": 2}, "output differs"),
}


def noticed(name: str) -> None:
    spoil, split, said = FAULTS[name]
    field = field_over(4, (8, 6), **split)
    ins, outs = field.mesh.group("in"), field.mesh.group("out")
    many = ParallelConv(2, 4, 3, field, padding=1, in_group=ins, out_group=outs, dtype=torch.float64)
    one = nn.Conv2d(2, 4, 3, padding=1, dtype=torch.float64)
    spoil(many)
    with pytest.raises(AssertionError, match=said):
        agree(many, one, random(2, 2, 8, 6), Part(field, ins), Part(many.output, outs))


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(ranks: Ranks, name: str) -> None:
    ranks(4, noticed, name)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_on_one_rank_it_is_torch_s_call(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same first values, the same numbers, no copy of the input, and fields of any size."""
    field = Field(alone(), (8,) * dims, ("",) * dims)
    torch.manual_seed(0)
    ours = ParallelConv(3, 4, 3, field, stride=2, padding=1)
    torch.manual_seed(0)
    theirs = TORCH[dims](3, 4, 3, stride=2, padding=1)
    x = torch.randn(2, 3, *[9] * dims)
    assert torch.equal(ours(x), theirs(x))
    seen = []
    real = convolution.CONVOLVE[dims]
    monkeypatch.setitem(convolution.CONVOLVE, dims, lambda *given: seen.append(given) or real(*given))
    ours(x)
    assert seen[0][0] is x
    assert seen[0][1] is ours.weight
    assert seen[0][2] is ours.bias


def equal_starts() -> None:
    """Ranks seeded alike hold parts of the tensors that one rank would have."""
    field = field_over(4, (8, 6), out=2)
    torch.manual_seed(3)
    one = nn.Conv2d(3, 5, 3)
    torch.manual_seed(3)
    many = ParallelConv(3, 5, 3, field, out_group=field.mesh.group("out"))
    for name, parameter in many.named_parameters():
        assert torch.equal(parameter, many.pieces[name].take(dict(one.named_parameters())[name]))


def test_first_values_do_not_depend_on_the_ranks(ranks: Ranks) -> None:
    ranks(4, equal_starts)


def test_index_arithmetic() -> None:
    """Against the taps of every output, one by one."""
    rng = Random(0)
    for _ in range(300):
        settings = draw(rng, 1)
        window = Window(*(settings[name][0] for name in ("kernel_size", "stride", "padding", "dilation")))
        length = settings["size"][0]
        outs = window.outputs(length)
        theirs = nn.functional.conv1d(
            torch.zeros(1, 1, length), torch.zeros(1, 1, window.kernel), None, window.stride, window.padding, window.dilation
        )
        assert theirs.shape[-1] == outs
        first = rng.randint(0, outs - 1)
        some = range(first, rng.randint(first + 1, outs))
        taps = [o * window.stride - window.padding + k * window.dilation for o in some for k in range(window.kernel)]
        assert window.reach(some) == range(min(taps), max(taps) + 1)


def test_widths_may_be_negative() -> None:
    assert halo_widths((4, 4), [range(-1, 5), range(3, 9)]) == ((1, 1), (1, 1))
    assert halo_widths((4, 4, 1), [range(1, 3), range(9, 10), range(0)]) == ((-1, -1), (-5, 2), (-1, 0))


def refusals() -> None:
    field = field_over(2, (8, 6))
    layer = ParallelConv(3, 4, 3, field)
    with pytest.raises(ModelError, match=r"takes \(batch, 3, any, 3\), got the shape \[2, 3, 8, 6\]"):
        layer(torch.zeros(2, 3, 8, 6))
    with pytest.raises(ModelError, match="take another mesh axis"):
        ParallelConv(3, 4, 3, field, in_group=field.groups[1])
    with pytest.raises(ModelError, match="do not cut"):
        Field(field.mesh, (8, 6), field.axes, lengths=((8,), (3, 4)))
    with pytest.raises(ModelError, match="a mesh axis of its own"):
        Field(field.mesh, (8, 6), field.axes[1:] * 2)


def test_what_does_not_fit_is_named(ranks: Ranks) -> None:
    ranks(2, refusals)
    field = Field(alone(), (8, 6), ("", ""))
    with pytest.raises(ModelError, match="at least 1 channel"):
        ParallelConv(0, 1, 3, field)
    with pytest.raises(ModelError, match="kernel_size must be a whole number or 2 of them"):
        ParallelConv(1, 1, (3, 3, 3), field)
    with pytest.raises(ModelError, match="at least 1 and padding of at least 0"):
        ParallelConv(1, 1, 3, field, stride=0)
    with pytest.raises(ModelError, match="a window of 9 indices does not fit into 6"):
        ParallelConv(1, 1, (3, 9), field)
    with pytest.raises(ModelError, match="1 to 3 spatial dims"):
        Field(alone(), (8, 6), ("",))
