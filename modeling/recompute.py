"""Activation recomputation: a layer forgets what it made on the way forward and makes it again on the way back.

What a layer keeps between its forward and backward pass, per token, is most of training's memory. "full" keeps the layer's input only, for
one more forward pass (arXiv 1604.06174). "selective" also keeps what is dear to compute, the results of matrix products and attention, and
makes norms, activations, rotation and sums again (after arXiv 2205.05198). Random numbers (dropout) are those of the first pass.
"""

# B batch, T tokens, D width.

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from modeling.backends import Attend
from modeling.errors import ModelError
from modeling.kv_cache import KVCache
from modeling.parallel.stream import Stream

RECOMPUTE = ("none", "selective", "full")

# Operations whose results "selective" keeps: matrix products, and every kernel of attention a backend may run.
KEPT = {
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_mm"),
    *("aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    *("aten::_scaled_dot_product_cudnn_attention", "aten::_scaled_dot_product_efficient_attention"),
    *("aten::_scaled_dot_product_fused_attention_overrideable", "aten::_flash_attention_forward"),
    *("phial::packed_attention", "phial::blocksparse_attention", "torch_attn::_varlen_attn", "flex_attention"),
    *("flash_attn::_flash_attn_varlen_forward", "flash_attn::_flash_attn_forward", "flash_attn_3::fwd"),
}


def check_recompute(name: str) -> str:
    """The name, where there is such a mode."""
    if name not in RECOMPUTE:
        raise ModelError(f"no recomputation {name!r}; there is {', '.join(RECOMPUTE)}")
    return name


def run_layer(
    layer: nn.Module,
    recompute: str,
    x_BTD: Tensor,
    tables: tuple[Tensor, Tensor],
    attend: Attend,
    cache: KVCache | None,
    stream: Stream,
) -> Tensor:
    """The layer's result, (B, T, D). With a cache, or where no gradient is wanted, there is nothing to make again."""
    if recompute == "none" or cache is not None:
        return layer(x_BTD, tables, attend, cache, stream)
    if recompute == "full":
        return checkpoint(layer, x_BTD, tables, attend, None, stream, use_reentrant=False)  # type: ignore[no-any-return]
    kept = partial(create_selective_checkpoint_contexts, keep_products)
    return checkpoint(layer, x_BTD, tables, attend, None, stream, use_reentrant=False, context_fn=kept)  # type: ignore[no-any-return]


def keep_products(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether the result of this operation is kept. Names without their overload, so that both forms of one operation count."""
    name = operation.name()
    return CheckpointPolicy.MUST_SAVE if name.split(".")[0] in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
