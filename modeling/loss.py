"""Next-token cross-entropy in float32, plain and in chunks that never hold all logits."""

# B batch, T tokens, C tokens of a chunk, D width, V vocabulary.

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor, z_loss: float = 0.0) -> Tensor:
    """Mean over the targets that are not -100 of -log softmax(logits)[target], in float32; 0 where every target is -100.

    targets_BT[b, t] is the token that follows token t: the caller has shifted. `z_loss` adds that weight times the mean of
    log(sum(exp(logits)))^2, which keeps the logits near zero (arXiv 2204.02311, section 5).
    """
    logits_CV, targets_C = logits_BTV.flatten(0, -2).float(), targets_BT.flatten()
    total = functional.cross_entropy(logits_CV, targets_C, ignore_index=IGNORED, reduction="sum")
    if z_loss:
        total = total + z_loss * (logits_CV.logsumexp(-1).square() * (targets_C != IGNORED)).sum()
    return total / count_targets(targets_C)


def count_targets(targets_BT: Tensor) -> Tensor:
    """How many targets count, at least 1."""
    return (targets_BT != IGNORED).sum().clamp(min=1)


def fused_next_token_loss(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    targets_BT: Tensor,
    z_loss: float = 0.0,
    chunk_tokens: int = 1024,
    never_ids: tuple[int, ...] = (),
) -> Tensor:
    """`next_token_loss(hidden @ head.T, targets)` whose logits exist for `chunk_tokens` tokens at a time.

    The gradients are taken in the same pass, chunk by chunk, so that no logits are kept for the way back. Under autocast the products run
    in its dtype; the softmax is float32 always. `never_ids` are entries whose logits are -inf.
    """
    return FusedLoss.apply(hidden_BTD, head_VD, targets_BT, z_loss, chunk_tokens, never_ids)  # type: ignore[no-any-return]


class FusedLoss(torch.autograd.Function):
    """Head product and cross-entropy as one operation with the gradient written out: d loss / d logits = (softmax - onehot) / count."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_BTD: Tensor,
        head_VD: Tensor,
        targets_BT: Tensor,
        z_loss: float,
        chunk_tokens: int,
        never_ids: tuple[int, ...],
    ) -> Tensor:
        device = hidden_BTD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head_VD.dtype
        with torch.autocast(device, enabled=False), torch.no_grad():
            return run_chunks(ctx, hidden_BTD, head_VD, targets_BT, z_loss, chunk_tokens, never_ids, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        grad_hidden_BTD, grad_head_VD = ctx.saved_tensors
        (scale,) = grads
        hidden = grad_hidden_BTD * scale if ctx.needs_input_grad[0] else None
        head = grad_head_VD * scale.to(grad_head_VD.dtype) if ctx.needs_input_grad[1] else None
        return hidden, head, None, None, None, None


def run_chunks(
    ctx: Any,
    hidden_BTD: Tensor,
    head_VD: Tensor,
    targets_BT: Tensor,
    z_loss: float,
    chunk_tokens: int,
    never_ids: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    """The loss, with both gradients saved in `ctx`."""
    rows_D = hidden_BTD.flatten(0, -2)
    targets = targets_BT.flatten()
    count = count_targets(targets)
    weight_VD = head_VD.to(dtype)
    total = torch.zeros((), dtype=torch.float32, device=hidden_BTD.device)
    grad_hidden = torch.empty_like(rows_D) if ctx.needs_input_grad[0] else None
    grad_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
    for start in range(0, rows_D.shape[0], chunk_tokens):
        chunk_CD = rows_D[start : start + chunk_tokens].to(dtype)
        targets_C = targets[start : start + chunk_tokens]
        kept_C1 = (targets_C != IGNORED)[:, None]
        safe_C1 = torch.where(kept_C1, targets_C[:, None], 0)
        logits_CV = functional.linear(chunk_CD, weight_VD).float()
        if never_ids:
            logits_CV[:, list(never_ids)] = -torch.inf
        lse_C1 = logits_CV.logsumexp(-1, keepdim=True)
        total += ((lse_C1 - logits_CV.gather(1, safe_C1) + z_loss * lse_C1.square()) * kept_C1).sum()
        if grad_hidden is None and grad_head_VD is None:
            continue
        grad_CV = logits_CV.sub_(lse_C1).exp_()
        if z_loss:
            grad_CV.mul_(1 + 2 * z_loss * lse_C1)
        grad_CV.scatter_add_(1, safe_C1, torch.full_like(lse_C1, -1.0))
        grad_CV = grad_CV.mul_(kept_C1 / count).to(dtype)
        if grad_hidden is not None:
            grad_hidden[start : start + chunk_tokens] = grad_CV @ weight_VD
        if grad_head_VD is not None:
            grad_head_VD += grad_CV.T @ chunk_CD
    saved_hidden = None if grad_hidden is None else grad_hidden.view_as(hidden_BTD)
    saved_head = None if grad_head_VD is None else grad_head_VD.to(head_VD.dtype)
    ctx.save_for_backward(saved_hidden, saved_head)
    return total / count
