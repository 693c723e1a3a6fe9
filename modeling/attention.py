"""The attention block of a layer: one matrix for query, key and value, rotation, attention, output."""

# B batch, T query tokens, S key tokens, D width, N query heads, K key/value heads, H features per head.

from torch import Tensor, nn

from modeling.backends import Attend
from modeling.config import DecoderConfig
from modeling.kv_cache import KVCache
from modeling.rope import rotate


class Attention(nn.Module):
    """The rows of the fused matrix are [Q | K | V], or [q..q, k, v] for one key head after another where `grouped_qkv`."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.sparse = config.sparse_in(layer)
        self.grouped = config.grouped_qkv
        self.head_dim = config.head_dim
        self.num_kv_heads = config.num_kv_heads
        self.widths = [config.num_heads * config.head_dim] + [config.num_kv_heads * config.head_dim] * 2
        self.scale = config.attention_scale
        self.qkv = nn.Linear(config.hidden_size, sum(self.widths), bias=config.biased)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=config.biased)

    def forward(self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], attend: Attend, cache: KVCache | None) -> Tensor:
        q_BNTH, k_BKTH, v_BKTH = self.split(self.qkv(x_BTD))
        q_BNTH, k_BKSH, v_BKSH = rotate(q_BNTH, *tables), rotate(k_BKTH, *tables), v_BKTH
        if cache is not None:
            k_BKSH, v_BKSH = cache.write(self.layer, k_BKSH, v_BKSH)
        y_BNTH = attend(q_BNTH, k_BKSH, v_BKSH, self.sparse, self.scale)
        return self.out(y_BNTH.transpose(1, 2).flatten(2))

    def split(self, qkv_BTF: Tensor) -> list[Tensor]:
        """Queries (B, N, T, H), keys and values (B, K, T, H)."""
        if self.grouped:
            grouped_BTKGH = qkv_BTF.unflatten(-1, (self.num_kv_heads, -1, self.head_dim))
            parts = (grouped_BTKGH[..., :-2, :].flatten(2, 3), grouped_BTKGH[..., -2, :], grouped_BTKGH[..., -1, :])
            return [part_BTNH.transpose(1, 2) for part_BTNH in parts]
        return [part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in qkv_BTF.split(self.widths, dim=-1)]
