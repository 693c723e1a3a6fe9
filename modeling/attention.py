"""The attention block of a layer: one matrix for query, key and value, rotation, attention, output."""

# B batch, T query tokens, S key tokens, D width, N query heads, K key/value heads, H features per head; all heads, or this rank's.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.backends import Attend
from modeling.config import DecoderConfig
from modeling.kv_cache import KVCache
from modeling.parallel.exchange import Boxes, Fetch
from modeling.parallel.heads import attend_share, boxes_of, share_heads
from modeling.parallel.split_linear import ColumnLinear, RowLinear, leave_block
from modeling.parallel.stream import ONE_RANK, Parallel, Stream
from modeling.rope import rotate


class Attention(nn.Module):
    """The rows of the fused matrix are [Q | K | V], or [q..q, k, v] for one key head after another where `grouped_qkv`.

    Over several ranks a rank holds [its Q | its K | its V] whatever the order in the whole matrix, and computes with `share.needed` key
    heads, of which it may have to fetch rows that other ranks hold; see `modeling.parallel.heads`.
    """

    def __init__(self, config: DecoderConfig, layer: int, parallel: Parallel = ONE_RANK) -> None:
        super().__init__()
        group = parallel.tensor_group
        shares = share_heads(config.num_heads, config.num_kv_heads, group.size)
        self.layer = layer
        self.alone = group.size == 1
        self.sparse = config.sparse_in(layer)
        self.grouped = config.grouped_qkv and self.alone
        self.head_dim = config.head_dim
        self.num_kv_heads = config.num_kv_heads
        self.share = shares[group.index]
        self.fetch_keys = Fetch(
            Boxes(
                "Fetch key heads", group, (1,), boxes_of([one.held for one in shares]), boxes_of([one.needed for one in shares]), few=True
            )
        )
        self.scale = config.attention_scale
        features = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        mine = [range(features)] if self.alone else fused_rows(config, self.share.queries, self.share.held)
        self.qkv = ColumnLinear(config.hidden_size, features, mine, config.biased)
        queries = range(self.share.queries.start * config.head_dim, self.share.queries.stop * config.head_dim)
        self.out = RowLinear(config.num_heads * config.head_dim, config.hidden_size, queries, config.biased)
        self.spread = parallel.spread
        self.widths = [len(self.share.queries) * config.head_dim] + [len(self.share.needed) * config.head_dim] * 2

    def forward(self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], attend: Attend, cache: KVCache | None, stream: Stream) -> Tensor:
        q_BNTH, k_BKTH, v_BKTH = self.split(self.project(stream.enter(x_BTD)))
        q_BNTH, k_BKSH, v_BKSH = rotate(q_BNTH, *tables), rotate(k_BKTH, *tables), v_BKTH
        if cache is not None:
            k_BKSH, v_BKSH = cache.write(self.layer, k_BKSH, v_BKSH)
        if self.alone:
            y_BNTH = attend(q_BNTH, k_BKSH, v_BKSH, self.sparse, self.scale)
        else:
            y_BNTH = attend_share(attend, self.share, q_BNTH, k_BKSH, v_BKSH, self.sparse, self.scale)
        return leave_block(self.out, y_BNTH.transpose(1, 2).flatten(2), stream, self.spread)

    def project(self, x_BTD: Tensor) -> Tensor:
        """The fused product, with the key heads that this rank's queries need."""
        if self.fetch_keys.does_nothing:
            return self.qkv(x_BTD)
        weight = self.with_needed_heads(self.qkv.weight)
        return functional.linear(x_BTD, weight, None if self.qkv.bias is None else self.with_needed_heads(self.qkv.bias))

    def with_needed_heads(self, rows_FD: Tensor) -> Tensor:
        """[its Q | its K | its V], rows of the weight or entries of the bias, to [its Q | needed K | needed V]."""
        queries_FD, held_FD = rows_FD.split([self.widths[0], rows_FD.shape[0] - self.widths[0]])
        needed_2KHD = self.fetch_keys(
            held_FD.unflatten(0, (2, -1, self.head_dim)) if held_FD.shape[0] else empty_heads(held_FD, self.head_dim)
        )
        return torch.cat((queries_FD, needed_2KHD.flatten(0, 2)))

    def split(self, qkv_BTF: Tensor) -> list[Tensor]:
        """Queries (B, N, T, H), keys and values (B, K, T, H)."""
        if self.grouped:
            grouped_BTKGH = qkv_BTF.unflatten(-1, (self.num_kv_heads, -1, self.head_dim))
            parts = (grouped_BTKGH[..., :-2, :].flatten(2, 3), grouped_BTKGH[..., -2, :], grouped_BTKGH[..., -1, :])
            return [part_BTNH.transpose(1, 2) for part_BTNH in parts]
        return [heads_of(part, self.head_dim).transpose(1, 2) for part in qkv_BTF.split(self.widths, dim=-1)]


def heads_of(x_BTF: Tensor, head_dim: int) -> Tensor:
    """(B, T, N, H); also of no heads at all."""
    return x_BTF.unflatten(-1, (x_BTF.shape[-1] // head_dim, head_dim))


def empty_heads(rows_FD: Tensor, head_dim: int) -> Tensor:
    """No rows as (2, 0, H, D), which torch cannot infer."""
    return rows_FD.reshape(2, 0, head_dim, *rows_FD.shape[1:])


def fused_rows(config: DecoderConfig, queries: range, held: range) -> list[range]:
    """The rows of these query and key heads in the whole fused matrix, as ranges in the order [Q | K | V]."""
    size, group = config.head_dim, config.num_heads // config.num_kv_heads

    def head_rows(place: int) -> range:
        return range(place * size, (place + 1) * size)

    if config.grouped_qkv:  # per key head: its query heads, key, value
        places = [(head // group) * (group + 2) + head % group for head in queries]
        places += [head * (group + 2) + group for head in held] + [head * (group + 2) + group + 1 for head in held]
    else:
        places = [*queries]
        places += [config.num_heads + head for head in held] + [config.num_heads + config.num_kv_heads + head for head in held]
    return [head_rows(place) for place in places]
