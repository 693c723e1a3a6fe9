"""The gated feed-forward blocks (arXiv 2002.05202)."""

# B batch, T tokens, D width, F hidden width, or this rank's share of it.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig
from modeling.parallel.heads import block_ranges
from modeling.parallel.partition import balanced
from modeling.parallel.split_linear import ColumnLinear, RowLinear, leave_block
from modeling.parallel.stream import ONE_RANK, Parallel, Stream


class FeedForward(nn.Module):
    """SwiGLU, down(up * silu(gate)); gate and up are one matrix, the gate's rows first."""

    def __init__(self, config: DecoderConfig, parallel: Parallel = ONE_RANK) -> None:
        super().__init__()
        mine, total = hidden_share(config, parallel), config.intermediate_size
        halves = [mine, range(total + mine.start, total + mine.stop)]
        self.gate_up = ColumnLinear(config.hidden_size, 2 * total, halves, config.biased)
        self.down = RowLinear(total, config.hidden_size, mine, config.biased)
        self.spread = parallel.spread

    def forward(self, x_BTD: Tensor, stream: Stream) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(stream.enter(x_BTD)).chunk(2, dim=-1)
        return leave_block(self.down, up_BTF * functional.silu(gate_BTF), stream, self.spread)


class ClampedGeglu(nn.Module):
    """phi-3-small's block: down(gelu(gate) * (up + 1)), gate and up in turn in one matrix (even rows gate), both clamped.

    gelu is the quick form x * sigmoid(1.702 x) (arXiv 1606.08415, section 2). The gate is clamped from above only; infinities are kept.
    """

    def __init__(self, config: DecoderConfig, parallel: Parallel = ONE_RANK) -> None:
        super().__init__()
        mine, total = hidden_share(config, parallel), config.intermediate_size
        self.limit = config.geglu_limit
        self.dropout = config.feed_forward_dropout
        pairs = [range(2 * mine.start, 2 * mine.stop)]
        self.gate_up = ColumnLinear(config.hidden_size, 2 * total, pairs, config.biased)
        self.down = RowLinear(total, config.hidden_size, mine, config.biased)
        self.spread = parallel.spread

    def forward(self, x_BTD: Tensor, stream: Stream) -> Tensor:
        both_BTF2 = self.gate_up(stream.enter(x_BTD)).unflatten(-1, (-1, 2))
        gate_BTF, up_BTF = both_BTF2[..., 0], both_BTF2[..., 1]
        gate_BTF = torch.where(gate_BTF.isinf(), gate_BTF, gate_BTF.clamp(max=self.limit))
        up_BTF = torch.where(up_BTF.isinf(), up_BTF, up_BTF.clamp(-self.limit, self.limit))
        y_BTD = leave_block(self.down, gate_BTF * torch.sigmoid(1.702 * gate_BTF) * (up_BTF + 1), stream, self.spread)
        return functional.dropout(y_BTD, self.dropout, self.training) if self.dropout else y_BTD


def hidden_share(config: DecoderConfig, parallel: Parallel) -> range:
    """The hidden features that this rank computes."""
    group = parallel.tensor_group
    return block_ranges(balanced(config.intermediate_size, group.size))[group.index]


def build_feed_forward(config: DecoderConfig, parallel: Parallel = ONE_RANK) -> nn.Module:
    """The feed-forward block that this decoder's layers use."""
    return (ClampedGeglu if config.feed_forward == "geglu" else FeedForward)(config, parallel)
