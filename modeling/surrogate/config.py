"""The sizes of a Fourier neural operator."""

from dataclasses import dataclass
from math import prod

from modeling.errors import ModelError
from modeling.parallel.fourier_plan import kept_modes


@dataclass(frozen=True, kw_only=True)
class FNOConfig:
    """neuraloperator's FNO with its defaults: linear skips around the spectral convolutions, gated ones around the channel MLPs.

    modes             kept per dim; the number of dims is that of modes. The last dim keeps modes // 2 + 1 coefficients
    lifting_ratio     width of the hidden layer that lifts, in hidden channels; projection_ratio, mlp_ratio alike
    coordinates       whether the points' coordinates in [0, 1) are further input channels
    """

    modes: tuple[int, ...]
    in_channels: int
    out_channels: int
    hidden_channels: int
    num_layers: int = 4
    lifting_ratio: float = 2.0
    projection_ratio: float = 2.0
    mlp_ratio: float = 0.5
    coordinates: bool = True

    def __post_init__(self) -> None:
        kept_modes(self.modes)
        for name in ("in_channels", "out_channels", "hidden_channels", "num_layers"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name}={getattr(self, name)}; at least 1 is needed")
        for name in ("lifting_width", "projection_width", "mlp_width"):
            if getattr(self, name) < 1:
                ratio = f"{name.removesuffix('_width')}_ratio"
                raise ModelError(f"{ratio}={getattr(self, ratio)} of {self.hidden_channels} hidden channels leaves no hidden layer")

    @property
    def dims(self) -> int:
        return len(self.modes)

    @property
    def lifted_channels(self) -> int:
        """Channels that enter the lifting layer."""
        return self.in_channels + (self.dims if self.coordinates else 0)

    @property
    def lifting_width(self) -> int:
        return int(self.lifting_ratio * self.hidden_channels)

    @property
    def projection_width(self) -> int:
        return int(self.projection_ratio * self.hidden_channels)

    @property
    def mlp_width(self) -> int:
        return round(self.mlp_ratio * self.hidden_channels)

    @property
    def num_parameters(self) -> int:
        """A complex number counts once, as torch counts it."""
        wide, inner = self.hidden_channels, self.mlp_width
        block = prod(kept_modes(self.modes)) * wide**2 + wide + wide**2 + 2 * wide * inner + inner + wide + wide
        lifting = self.lifted_channels * self.lifting_width + self.lifting_width + self.lifting_width * wide + wide
        projection = wide * self.projection_width + self.projection_width + (self.projection_width + 1) * self.out_channels
        return self.num_layers * block + lifting + projection
