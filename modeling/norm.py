"""Normalisation of the stream: root-mean-square (arXiv 1910.07467), or LayerNorm with bias (arXiv 1607.06450) in phi-3-small."""

# B batch, T tokens, D width.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig
from modeling.parallel.operator import Operator
from modeling.parallel.stream import ONE_RANK


class RMSNorm(nn.Module):
    """x / rms(x) * weight; computed in float32, rounded back to the input's dtype before the weight multiplies, as the reference does.

    `spread` is what the weight passes through where the ranks hold parts of x, so that its gradient is the sum over them.
    """

    def __init__(self, width: int, eps: float, spread: Operator = ONE_RANK.spread) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.spread = spread

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide_BTD = x_BTD.float()
        wide_BTD = wide_BTD * torch.rsqrt(wide_BTD.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.spread(self.weight) * wide_BTD.to(x_BTD.dtype)


class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm over the last dim, weight and bias through `spread` as in `RMSNorm`."""

    def __init__(self, width: int, eps: float, spread: Operator = ONE_RANK.spread) -> None:
        super().__init__(width, eps=eps)
        self.spread = spread

    def forward(self, x_BTD: Tensor) -> Tensor:
        return functional.layer_norm(x_BTD, self.normalized_shape, self.spread(self.weight), self.spread(self.bias), self.eps)


def build_norm(config: DecoderConfig, spread: Operator = ONE_RANK.spread) -> nn.Module:
    """The norm that this decoder uses everywhere."""
    kind = LayerNorm if config.norm == "layer" else RMSNorm
    return kind(config.hidden_size, config.norm_eps, spread)
