"""torch's fused attention (`scaled_dot_product_attention`); on a CPU, packed rows go document by document."""

# B batch, T query tokens, S key tokens, N query heads, K key/value heads, H features per head.

import torch
from torch import Tensor
from torch.nn import functional

from modeling.backends.blocksparse import blocksparse_attention
from modeling.backends.masks import Masks, spread
from modeling.backends.packed import packed_attention
from modeling.config import DecoderConfig
from modeling.visible import Visible, document_bounds


class Sdpa:
    """Without a mask the queries are causal over keys of the same length, or one query sees every key.

    On a CPU, packed rows take `packed_attention` and blocksparse layers `blocksparse_attention`: no work on what no query sees, and no
    mask of T * T values. Decoding with a cache and padded rows keep the mask, which is small there or made once.
    """

    def __init__(self, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
        whole_rows = device.type == "cpu" and visible.first_B is None and visible.num_queries == visible.num_keys
        self.window = visible.window or 0
        self.bounds = document_bounds(visible.runs_BT) if whole_rows and visible.runs_BT is not None else None
        self.sparse = config.blocksparse if whole_rows else None
        # One row's bounds hold for every row.
        self.sparse_bounds = torch.tensor([0, visible.num_keys], dtype=torch.int32) if self.bounds is None else self.bounds
        self.masks = Masks(config, visible, device, dense=self.bounds is None, sparse=self.sparse is None)

    def __call__(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float) -> Tensor:
        if sparse and self.sparse is not None:
            return blocksparse_attention(q_BNTH, k_BKSH, v_BKSH, self.sparse_bounds, self.sparse, scale)
        if self.bounds is not None and not sparse:
            return packed_attention(q_BNTH, k_BKSH, v_BKSH, self.bounds, self.window, scale)
        mask_BNTS = self.masks.of(sparse)
        groups = q_BNTH.shape[1] // k_BKSH.shape[1]
        native = groups > 1 and mask_BNTS is None
        if groups > 1 and not native:
            k_BKSH, v_BKSH = spread(k_BKSH, groups), spread(v_BKSH, groups)
        causal = mask_BNTS is None and q_BNTH.shape[2] > 1
        return functional.scaled_dot_product_attention(
            q_BNTH, k_BKSH, v_BKSH, attn_mask=mask_BNTS, is_causal=causal, scale=scale, enable_gqa=native
        )
