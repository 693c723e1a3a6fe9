"""One layer: attention, then the feed-forward block, each normalised before and added to the stream."""

# B batch, T tokens, D width.

from torch import Tensor, nn

from modeling.attention import Attention
from modeling.backends import Attend
from modeling.config import DecoderConfig
from modeling.feed_forward import build_feed_forward
from modeling.kv_cache import KVCache
from modeling.norm import build_norm
from modeling.parallel.stream import ONE_RANK, Parallel, Stream


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)). Over several ranks each block is entered and left through the stream."""

    def __init__(self, config: DecoderConfig, layer: int, parallel: Parallel = ONE_RANK) -> None:
        super().__init__()
        self.attention_norm = build_norm(config, parallel.spread)
        self.attention = Attention(config, layer, parallel)
        self.feed_forward_norm = build_norm(config, parallel.spread)
        self.feed_forward = build_feed_forward(config, parallel)

    def forward(self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], attend: Attend, cache: KVCache | None, stream: Stream) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), tables, attend, cache, stream)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD), stream)
