"""phi-3-small written out from its specification, with dense masks and nothing of ours: what the decoder is tested against.

The specification is the released configuration, the checkpoint's key names, and section 2 of arXiv 2404.14219. Plain functions over a dict
of tensors by released name, in the dtype of those tensors; masks are built by loops over blocks, heads are computed one after another.
"""

# B batch, T tokens, D width, H features per head, F hidden width, V vocabulary.

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """The released configuration's keys that decide arithmetic, with the released 8k values."""

    hidden_size: int = 4096
    ff_intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    vocab_size: int = 100352
    layer_norm_epsilon: float = 1e-5
    rope_embedding_base: float = 1e6
    gegelu_limit: float = 20.0
    mup_use_scaling: bool = True
    mup_attn_multiplier: float = 1.0
    mup_embedding_multiplier: float = 10.0
    mup_width_multiplier: float = 8.0
    blocksparse_block_size: int = 64
    blocksparse_num_local_blocks: int = 16
    blocksparse_vert_stride: int = 8
    dense_attention_every_n_layers: int = 2
    dummy_token_indices: tuple[int, ...] = (100256, 100258, 100259, 100260, 100264, 100265, *range(100267, 100352))

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def score_scale(self) -> float:
        """muP's 1/d, or the usual 1/sqrt(d)."""
        return self.mup_attn_multiplier / self.head_dim if self.mup_use_scaling else 1.0 / math.sqrt(self.head_dim)


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of the released checkpoint; the head is the embedding."""
    width, inner = sizes.hidden_size, sizes.ff_intermediate_size
    fused = (sizes.num_attention_heads + 2 * sizes.num_key_value_heads) * sizes.head_dim
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocab_size, width)}
    for number in range(sizes.num_hidden_layers):
        matrices = {
            "self_attn.query_key_value": (fused, width),
            "self_attn.dense": (width, width),
            "mlp.up_proj": (2 * inner, width),
            "mlp.down_proj": (width, inner),
        }
        for name, shape in matrices.items():
            found[f"model.layers.{number}.{name}.weight"] = shape
            found[f"model.layers.{number}.{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{number}.{name}.weight"] = found[f"model.layers.{number}.{name}.bias"] = (width,)
    found["model.final_layernorm.weight"] = found["model.final_layernorm.bias"] = (width,)
    return found


def logits(weights: Weights, ids_BT: Tensor, sizes: Sizes) -> Tensor:
    """(B, T, V)."""
    embedding_VD = weights["model.embed_tokens.weight"]
    rows = [row_logits(weights, embedding_VD[ids_T] * sizes.mup_embedding_multiplier, sizes) for ids_T in ids_BT]
    return torch.stack(rows)


def row_logits(weights: Weights, x_TD: Tensor, sizes: Sizes) -> Tensor:
    """One row's logits (T, V) from what the first layer reads."""
    for number in range(sizes.num_hidden_layers):
        at = f"model.layers.{number}."
        x_TD = x_TD + attention(weights, at + "self_attn.", layer_norm(weights, at + "input_layernorm.", x_TD, sizes), number, sizes)
        x_TD = x_TD + feed_forward(weights, at + "mlp.", layer_norm(weights, at + "post_attention_layernorm.", x_TD, sizes), sizes)
    x_TD = layer_norm(weights, "model.final_layernorm.", x_TD, sizes)
    logits_TV = x_TD @ weights["model.embed_tokens.weight"].T / sizes.mup_width_multiplier
    never_V = torch.zeros(sizes.vocab_size, dtype=torch.bool)
    never_V[list(sizes.dummy_token_indices)] = True
    return logits_TV.masked_fill(never_V, -torch.inf)


def layer_norm(weights: Weights, at: str, x_TD: Tensor, sizes: Sizes) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, the variance over D."""
    centred_TD = x_TD - x_TD.mean(-1, keepdim=True)
    deviation_T1 = (centred_TD.square().mean(-1, keepdim=True) + sizes.layer_norm_epsilon).sqrt()
    return centred_TD / deviation_T1 * weights[at + "weight"] + weights[at + "bias"]


def linear(weights: Weights, at: str, x_TD: Tensor) -> Tensor:
    return x_TD @ weights[at + ".weight"].T + weights[at + ".bias"]


def attention(weights: Weights, at: str, x_TD: Tensor, number: int, sizes: Sizes) -> Tensor:
    """Head by head; query heads of one group share its key and value."""
    groups = split_groups(linear(weights, at + "query_key_value", x_TD), sizes)
    outputs = []
    for queries, key_TH, value_TH in groups:
        key_TH = rotate(key_TH, sizes)
        for query_TH in queries:
            scores_TT = rotate(query_TH, sizes) @ key_TH.T * sizes.score_scale
            seen_TT = seen_by(number, len(outputs), len(x_TD), sizes)
            outputs.append(functional.softmax(scores_TT.masked_fill(~seen_TT, -torch.inf), dim=-1) @ value_TH)
    return linear(weights, at + "dense", torch.cat(outputs, dim=-1))


def split_groups(fused_TF: Tensor, sizes: Sizes) -> list[tuple[list[Tensor], Tensor, Tensor]]:
    """The fused rows are [q, ..., q, k, v] for one key/value head after another: queries, key and value of each, (T, H)."""
    each = sizes.num_attention_heads // sizes.num_key_value_heads
    heads = list(fused_TF.split(sizes.head_dim, dim=-1))
    starts = range(0, len(heads), each + 2)
    return [(heads[start : start + each], heads[start + each], heads[start + each + 1]) for start in starts]


def rotate(x_TH: Tensor, sizes: Sizes) -> Tensor:
    """Features i and i + H/2 turn by position * theta^(-2i/H)."""
    tokens, width = x_TH.shape
    half = width // 2
    rates = torch.tensor([sizes.rope_embedding_base ** (-2 * index / width) for index in range(half)], dtype=torch.float64)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * rates
    cos, sin = angles.cos().to(x_TH.dtype), angles.sin().to(x_TH.dtype)
    first, second = x_TH[:, :half], x_TH[:, half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def is_dense(number: int, sizes: Sizes) -> bool:
    """Layers 1, 3, 5, ... counted from 0 when every second layer is dense."""
    return (number + 1) % sizes.dense_attention_every_n_layers == 0


def is_vertical(block: int, head: int, sizes: Sizes) -> bool:
    """Whether every later query of that head sees this block of keys."""
    step = max(1, sizes.blocksparse_vert_stride // sizes.num_attention_heads)
    return (block + head * step + 1) % sizes.blocksparse_vert_stride == 0


def seen_by(number: int, head: int, tokens: int, sizes: Sizes) -> Tensor:
    """True where query t sees key s, (T, T)."""
    size = sizes.blocksparse_block_size
    seen_TT = torch.zeros(tokens, tokens, dtype=torch.bool)
    for query in range(tokens):
        for block in range(query // size + 1):
            near = query // size - block < sizes.blocksparse_num_local_blocks
            if near or is_dense(number, sizes) or is_vertical(block, head, sizes):
                for key in range(block * size, min((block + 1) * size, query + 1)):
                    seen_TT[query, key] = True
    return seen_TT


def feed_forward(weights: Weights, at: str, x_TD: Tensor, sizes: Sizes) -> Tensor:
    return linear(weights, at + "down_proj", gegelu(linear(weights, at + "up_proj", x_TD), sizes.gegelu_limit))


def gegelu(both_TF: Tensor, limit: float) -> Tensor:
    """gelu(even features) * (odd features + 1); the first limited from above, the second on both sides, infinities left as they are."""
    gate_TF, linear_TF = both_TF[:, 0::2], both_TF[:, 1::2]
    gate_TF = torch.where(gate_TF.abs() == torch.inf, gate_TF, gate_TF.clamp(max=limit))
    linear_TF = torch.where(linear_TF.abs() == torch.inf, linear_TF, linear_TF.clamp(min=-limit, max=limit))
    return gate_TF / (1 + torch.exp(-1.702 * gate_TF)) * (linear_TF + 1)
