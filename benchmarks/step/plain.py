"""A decoder as one writes it by hand in plain torch: no flags, a dense document mask, all logits at once. The benchmark's third side.

It has our parameter names, so that the same weights load; it shares no code with `modeling`.
"""

# B rows, T tokens, D width, N heads, H features per head, V vocabulary.

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig


class PlainAttention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        self.head_dim = config.head_dim
        self.qkv = nn.Linear(config.hidden_size, sum(self.heads) * config.head_dim, bias=False)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, mask: Tensor | None) -> Tensor:
        parts = self.qkv(x_BTD).split([heads * self.head_dim for heads in self.heads], dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        q, k = turn(q, cos_TH, sin_TH), turn(k, cos_TH, sin_TH)
        groups = self.heads[0] // self.heads[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y_BNTH = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(y_BNTH.transpose(1, 2).flatten(2))


class PlainFeedForward(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class PlainLayer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = PlainAttention(config)
        self.feed_forward_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.feed_forward = PlainFeedForward(config)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, mask: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TH, sin_TH, mask)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class PlainDecoder(nn.Module):
    """For models without a window, longrope or phi-3-small's parts."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(PlainLayer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor, positions_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """Logits (B, T, V); with `documents_BT` a token sees its own document only."""
        half_H = torch.arange(0, self.config.head_dim, 2, device=ids_BT.device) / self.config.head_dim
        angles_BTH = positions_BT[..., None] / self.config.rope_theta**half_H
        angles_B1TH = torch.cat((angles_BTH, angles_BTH), dim=-1)[:, None]
        mask = None
        if documents_BT is not None:
            tokens = ids_BT.shape[1]
            causal_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=ids_BT.device).tril()
            mask = ((documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT)[:, None]
        x_BTD = self.embedding(ids_BT)
        cos, sin = angles_B1TH.cos(), angles_B1TH.sin()
        if torch.is_autocast_enabled(ids_BT.device.type):
            dtype = torch.get_autocast_dtype(ids_BT.device.type)
            cos, sin = cos.to(dtype), sin.to(dtype)
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos, sin, mask)
        return functional.linear(self.norm(x_BTD), self.embedding.weight if self.head is None else self.head.weight)


def turn(x_BNTH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: features i and i + H/2 make a pair."""
    first, second = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos + torch.cat((-second, first), dim=-1) * sin
