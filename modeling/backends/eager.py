"""Attention written out: scores, an added mask, softmax, weighted values. It holds all B*N*T*S scores."""

# B batch, T query tokens, S key tokens, N query heads, K key/value heads, G = N/K queries per key, H features per head.

import torch
from torch import Tensor
from torch.nn import functional

from modeling.backends.masks import Masks, spread
from modeling.config import DecoderConfig
from modeling.visible import Visible


class Eager:
    """As the reference computes it: the softmax in float32, rounded afterwards.

    Under autocast the softmax takes and gives autocast's dtype (its kernel works in float32 inside and differs by a last bit now and then):
    its steps then need no copies in float32, and on a CPU training on short rows in bfloat16 is 1.4 to 1.7 times as fast as with torch's
    fused kernel (docs/alignment.md, docs/log.md).
    """

    def __init__(self, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
        self.masks = Masks(config, visible, device, always=True)

    def __call__(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float) -> Tensor:
        mask_BNTS = self.masks.of(sparse)
        groups = q_BNTH.shape[1] // k_BKSH.shape[1]
        k_BNSH, v_BNSH = spread(k_BKSH, groups), spread(v_BKSH, groups)
        device, dtype = q_BNTH.device.type, q_BNTH.dtype
        softmax_dtype = torch.float32
        if torch.is_autocast_enabled(device):
            softmax_dtype = dtype = torch.get_autocast_dtype(device)
            q_BNTH, k_BNSH, v_BNSH = q_BNTH.to(dtype), k_BNSH.to(dtype), v_BNSH.to(dtype)
        with torch.autocast(device, enabled=False):
            scores_BNTS = torch.matmul(q_BNTH, k_BNSH.transpose(2, 3)) * scale
            if mask_BNTS is not None:
                zero = torch.zeros((), dtype=dtype, device=q_BNTH.device)
                scores_BNTS = scores_BNTS + torch.where(mask_BNTS, zero, torch.finfo(dtype).min)
            return torch.matmul(functional.softmax(scores_BNTS, dim=-1, dtype=softmax_dtype).to(dtype), v_BNSH)
