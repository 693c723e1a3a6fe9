"""The dense masks of a forward pass, made once for all its layers."""

# B batch, T query tokens, S key tokens, N query heads, K key/value heads, H features per head.

import torch
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.visible import Visible, dense_mask


class Masks:
    """One mask for the dense layers, one for the blocksparse ones; None where plain causality says it all, unless `always`.

    Without `dense` or `sparse` those layers have another way and none is made for them.
    """

    def __init__(
        self,
        config: DecoderConfig,
        visible: Visible,
        device: torch.device,
        always: bool = False,
        dense: bool = True,
        sparse: bool = True,
    ) -> None:
        self.dense = dense_mask(visible, device) if dense and (always or not visible.plain) else None
        pattern = config.blocksparse if sparse else None
        self.sparse = None if pattern is None else dense_mask(visible, device, pattern, config.num_heads)

    def of(self, sparse: bool) -> Tensor | None:
        """The mask of a blocksparse layer, or of a dense one."""
        return self.sparse if sparse else self.dense


def spread(x_BKSH: Tensor, groups: int) -> Tensor:
    """Each key/value head beside itself once per query head of its group; expand and reshape, whose strides equal the reference's."""
    if groups == 1:
        return x_BKSH
    batch, heads, tokens, width = x_BKSH.shape
    return x_BKSH[:, :, None].expand(batch, heads, groups, tokens, width).reshape(batch, heads * groups, tokens, width)
