"""Normalisation of the stream: root-mean-square (arXiv 1910.07467), or LayerNorm with bias (arXiv 1607.06450) in phi-3-small."""

# B batch, T tokens, D width.

import torch
from torch import Tensor, nn

from modeling.config import DecoderConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight; computed in float32, rounded back to the input's dtype before the weight multiplies, as the reference does."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide_BTD = x_BTD.float()
        wide_BTD = wide_BTD * torch.rsqrt(wide_BTD.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide_BTD.to(x_BTD.dtype)


def build_norm(config: DecoderConfig) -> nn.Module:
    """The norm that this decoder uses everywhere."""
    if config.norm == "layer":
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
    return RMSNorm(config.hidden_size, config.norm_eps)
