"""The gated feed-forward blocks (arXiv 2002.05202)."""

# B batch, T tokens, D width, F hidden width.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig


class FeedForward(nn.Module):
    """SwiGLU, down(up * silu(gate)); gate and up are one matrix, the gate's rows first."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.biased)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.biased)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(up_BTF * functional.silu(gate_BTF))


class ClampedGeglu(nn.Module):
    """phi-3-small's block: down(gelu(gate) * (up + 1)), gate and up in turn in one matrix (even rows gate), both clamped.

    gelu is the quick form x * sigmoid(1.702 x) (arXiv 1606.08415, section 2). The gate is clamped from above only; infinities are kept.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.limit = config.geglu_limit
        self.dropout = config.feed_forward_dropout
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.biased)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.biased)

    def forward(self, x_BTD: Tensor) -> Tensor:
        both_BTF2 = self.gate_up(x_BTD).unflatten(-1, (-1, 2))
        gate_BTF, up_BTF = both_BTF2[..., 0], both_BTF2[..., 1]
        gate_BTF = torch.where(gate_BTF.isinf(), gate_BTF, gate_BTF.clamp(max=self.limit))
        up_BTF = torch.where(up_BTF.isinf(), up_BTF, up_BTF.clamp(-self.limit, self.limit))
        y_BTD = self.down(gate_BTF * torch.sigmoid(1.702 * gate_BTF) * (up_BTF + 1))
        return functional.dropout(y_BTD, self.dropout, self.training) if self.dropout else y_BTD


def build_feed_forward(config: DecoderConfig) -> nn.Module:
    """The feed-forward block that this decoder's layers use."""
    return ClampedGeglu(config) if config.feed_forward == "geglu" else FeedForward(config)
