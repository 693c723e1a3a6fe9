"""Causal attention with grouped keys, a sliding window and documents that stay apart."""

# B batch, T query tokens, S key tokens, D width, N query heads, K key/value heads, G = N/K queries per key, H features per head.

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.kv_cache import KVCache
from modeling.rope import rotate


def attention_mask(
    config: DecoderConfig,
    num_queries: int,
    num_keys: int,
    documents_BT: Tensor | None,
    device: torch.device,
    always: bool = False,
) -> Tensor | None:
    """Which key each query sees, (1 or B, 1, T, S) boolean, or None where plain causality says it all; made once per forward pass.

    The queries are the last `num_queries` of the `num_keys` tokens. Key j is seen by query i when j <= i, i - window_keys < j, and both
    lie in the same document. `always` makes the mask even where None would do.
    """
    window = config.window_keys if config.window_keys is not None and num_keys >= config.window_keys else None
    plain = window is None and documents_BT is None and (num_queries in (1, num_keys))
    if plain and not always:
        return None
    query_T1 = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key_S = torch.arange(num_keys, device=device)
    seen_TS = key_S <= query_T1
    if window is not None:
        seen_TS = (key_S > query_T1 - window) & seen_TS
    if documents_BT is None:
        return seen_TS[None, None]
    runs_BT = document_runs(documents_BT)
    return ((runs_BT[:, :, None] == runs_BT[:, None, :]) & seen_TS)[:, None]


def document_runs(documents_BT: Tensor) -> Tensor:
    """Numbers the documents of a row by where their id changes, so that an id that comes back later is another document."""
    changes_BT = torch.zeros_like(documents_BT)
    changes_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return changes_BT.cumsum(-1)


def document_positions(documents_BT: Tensor) -> Tensor:
    """Positions that restart at 0 with every document, (B, T)."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    starts_BT = torch.zeros_like(documents_BT)
    starts_BT[:, 1:] = torch.where(documents_BT[:, 1:] != documents_BT[:, :-1], index_T[1:], 0)
    return index_T - starts_BT.cummax(-1).values


def spread(x_BKSH: Tensor, groups: int) -> Tensor:
    """Each key/value head beside itself once per query head of its group; expand and reshape, whose strides equal the reference's."""
    if groups == 1:
        return x_BKSH
    batch, heads, tokens, width = x_BKSH.shape
    return x_BKSH[:, :, None].expand(batch, heads, groups, tokens, width).reshape(batch, heads * groups, tokens, width)


def sdpa(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask_B1TS: Tensor | None, scale: float) -> Tensor:
    """torch's fused attention. Without a mask the queries are causal over keys of the same length, or one query sees every key."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    native = groups > 1 and mask_B1TS is None
    if groups > 1 and not native:
        k_BKSH, v_BKSH = spread(k_BKSH, groups), spread(v_BKSH, groups)
    causal = mask_B1TS is None and q_BNTH.shape[2] > 1
    return functional.scaled_dot_product_attention(
        q_BNTH, k_BKSH, v_BKSH, attn_mask=mask_B1TS, is_causal=causal, scale=scale, enable_gqa=native
    )


def eager(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask_B1TS: Tensor | None, scale: float) -> Tensor:
    """Attention written out: scores, an added mask, softmax, weighted values. It holds all B*N*T*S scores.

    The softmax works in float32 inside and rounds its result, as the reference's does; so its steps need no copies in float32, and on a
    CPU short rows in bfloat16 run more than twice as fast as in `sdpa`, whose bfloat16 kernel there is slower than its float32 one.
    """
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = spread(k_BKSH, groups), spread(v_BKSH, groups)
    device, dtype = q_BNTH.device.type, q_BNTH.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        q_BNTH, k_BNSH, v_BNSH = q_BNTH.to(dtype), k_BNSH.to(dtype), v_BNSH.to(dtype)
    with torch.autocast(device, enabled=False):
        scores_BNTS = torch.matmul(q_BNTH, k_BNSH.transpose(2, 3)) * scale
        if mask_B1TS is not None:
            zero = torch.zeros((), dtype=dtype, device=q_BNTH.device)
            scores_BNTS = scores_BNTS + torch.where(mask_B1TS, zero, torch.finfo(dtype).min)
        return torch.matmul(functional.softmax(scores_BNTS, dim=-1), v_BNSH)


BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]] = {"sdpa": sdpa, "eager": eager}


def check_backend(name: str) -> str:
    """The name, where there is such a backend; never a silent replacement."""
    if name not in BACKENDS:
        raise ModelError(f"no attention backend {name!r}; there is {', '.join(BACKENDS)}")
    return name


class Attention(nn.Module):
    """Query, key and value from one matrix (rows [Q | K | V]), rotation, attention, output."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.widths = [config.num_heads * config.head_dim] + [config.num_kv_heads * config.head_dim] * 2
        self.scale = config.head_dim**-0.5
        self.qkv = nn.Linear(config.hidden_size, sum(self.widths), bias=False)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KVCache | None, backend: str
    ) -> Tensor:
        parts = self.qkv(x_BTD).split(self.widths, dim=-1)
        q_BNTH, k_BKTH, v_BKTH = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        q_BNTH, k_BKSH, v_BKSH = rotate(q_BNTH, *tables), rotate(k_BKTH, *tables), v_BKTH
        if cache is not None:
            k_BKSH, v_BKSH = cache.write(self.layer, k_BKSH, v_BKSH)
        y_BNTH = BACKENDS[backend](q_BNTH, k_BKSH, v_BKSH, mask_B1TS, self.scale)
        return self.out(y_BNTH.transpose(1, 2).flatten(2))
