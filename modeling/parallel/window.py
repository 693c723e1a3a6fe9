"""Index arithmetic of sliding windows over a dim that is cut into blocks: which inputs a block of outputs needs. No torch in here."""

from collections.abc import Sequence
from dataclasses import dataclass

from modeling.errors import ModelError
from modeling.parallel.partition import starts


@dataclass(frozen=True)
class Window:
    """One dim of a convolution or pooling: `kernel` taps `dilation` apart, moved by `stride`, over `padding` more indices at both ends."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation) < 1 or self.padding < 0:
            raise ModelError(f"a window needs kernel, stride and dilation of at least 1 and padding of at least 0, got {self}")

    @property
    def span(self) -> int:
        """From the first tap to the last, both counted."""
        return self.dilation * (self.kernel - 1) + 1

    def outputs(self, length: int) -> int:
        """How many places the window has over `length` indices and the padding around them."""
        room = length + 2 * self.padding - self.span
        if room < 0:
            raise ModelError(f"a window of {self.span} indices does not fit into {length} with a padding of {self.padding}")
        return room // self.stride + 1

    def reach(self, outputs: range) -> range:
        """The inputs under the windows of neighbouring outputs; below 0 and past the dim's end they are padding."""
        if not outputs:
            return range(0)
        return range(outputs.start * self.stride - self.padding, (outputs.stop - 1) * self.stride - self.padding + self.span)


def blocks(lengths: Sequence[int]) -> list[range]:
    """The indices of neighbouring blocks."""
    return [range(first, first + length) for first, length in zip(starts(lengths), lengths, strict=True)]


def halo_widths(lengths: Sequence[int], wanted: Sequence[range]) -> tuple[tuple[int, int], ...]:
    """(left, right) by which every block has to grow to be the indices wanted of it; negative where it has more than it needs.

    A block of which nothing is wanted loses all it has.
    """
    return tuple(
        (held.start - want.start, want.stop - held.stop) if want else (-len(held), 0)
        for held, want in zip(blocks(lengths), wanted, strict=True)
    )


def per_dim(value: int | Sequence[int], dims: int, name: str) -> tuple[int, ...]:
    """A setting that is one number for all dims or one for each."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims or not all(isinstance(one, int) for one in values):
        raise ModelError(f"{name} must be a whole number or {dims} of them, got {value!r}")
    return values
