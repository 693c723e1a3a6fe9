"""Sliding windows over a field: the halo that gives each rank the inputs of its balanced block of outputs, and the padding around all."""

from collections.abc import Sequence

from torch import Tensor

from modeling.errors import ModelError
from modeling.parallel.field import Field
from modeling.parallel.moves import halo
from modeling.parallel.window import Window, blocks, halo_widths


class FieldWindows:
    """What convolution and pooling have in common.

    output   the field of the results, in balanced blocks on the same ranks
    enter    the halo: a rank's block -> all inputs under its windows. `zeros` has it write the zeros of the outer border along with them,
             which costs no further copy
    padding  of each dim, what is left for the local kernel to pad on both sides: all of it where the dim is whole, else nothing
    outside  of each dim, (left, right) of this rank's windows that lie beyond the field, and are missing in a halo without zeros
    """

    def __init__(self, field: Field, windows: Sequence[Window], zeros: bool) -> None:
        self.field, self.windows = field, tuple(windows)
        self.output = field.resized([window.outputs(length) for window, length in zip(windows, field.size, strict=True)])
        split = [group.size > 1 for group in field.groups]
        self.padding = tuple(0 if cut else window.padding for window, cut in zip(windows, split, strict=True))
        wanted = [
            [window.reach(block) for block in blocks(outs)] if cut else [range(length)]
            for window, outs, length, cut in zip(windows, self.output.lengths, field.size, split, strict=True)
        ]
        widths = [halo_widths(ins, wants) for ins, wants in zip(field.lengths, wanted, strict=True)]
        self.enter = halo(field.groups, [2 + dim for dim in range(field.dims)], field.lengths, widths, zeros)
        mine = [wants[group.index] for wants, group in zip(wanted, field.groups, strict=True)]
        self.outside = tuple((max(0, -want.start), max(0, want.stop - length)) for want, length in zip(mine, field.size, strict=True))

    def local_size(self, x: Tensor) -> tuple[int, ...]:
        """The spatial shape of this rank's result for an input that has entered; on one rank of whatever size comes."""
        return tuple(
            own if group.size > 1 else window.outputs(length)
            for own, group, window, length in zip(self.output.box.size, self.field.groups, self.windows, x.shape[2:], strict=True)
        )


def check_field(x: Tensor, field: Field, channels: int | None, what: str) -> None:
    """Refuses a tensor that is not (batch, this rank's channels, this rank's points)."""
    own = field.local_size
    fits = x.ndim == 2 + len(own) and channels in (None, x.shape[1])
    if fits and all(want in (None, got) for want, got in zip(own, x.shape[2:], strict=True)):
        return
    points = ", ".join("any" if one is None else str(one) for one in own)
    raise ModelError(
        f"{what} on this rank takes (batch, {'any' if channels is None else channels}, {points}), got the shape {list(x.shape)}"
    )
