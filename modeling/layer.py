"""One layer: attention, then the feed-forward block, each normalised before and added to the stream."""

# B batch, T tokens, S keys, D width.

from torch import Tensor, nn

from modeling.attention import Attention
from modeling.config import DecoderConfig
from modeling.feed_forward import FeedForward
from modeling.kv_cache import KVCache
from modeling.norm import RMSNorm


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KVCache | None, backend: str
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), tables, mask_B1TS, cache, backend)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
