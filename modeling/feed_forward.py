"""The gated feed-forward block (SwiGLU, arXiv 2002.05202)."""

# B batch, T tokens, D width, F hidden width.

from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig


class FeedForward(nn.Module):
    """down(up * silu(gate)); gate and up are one matrix, the gate's rows first."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(up_BTF * functional.silu(gate_BTF))
