"""Next-token cross-entropy in float32 (float64 for float64 weights), plain and in chunks that never hold all logits."""

# B batch, T tokens, C tokens of a chunk, D width, V vocabulary, v this rank's part of it.

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modeling.errors import ModelError
from modeling.parallel.vocabulary import WHOLE_VOCABULARY, VocabularyShare

IGNORED = -100

# Tokens per chunk. On CPUs shorter chunks add to the head's gradient too often and longer ones leave the caches; both were slower. A GPU
# needs larger products to be busy.
CHUNK_TOKENS = {"cpu": 512}
CHUNK_TOKENS_ELSEWHERE = 4096


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor, z_loss: float = 0.0) -> Tensor:
    """Mean over the targets that are not -100 of -log softmax(logits)[target], in float32; 0 where every target is -100.

    targets_BT[b, t] is the token that follows token t: the caller has shifted. `z_loss` adds that weight times the mean of
    log(sum(exp(logits)))^2, which keeps the logits near zero (arXiv 2204.02311, section 5).
    """
    logits_CV, targets_C = widened(logits_BTV.flatten(0, -2)), targets_BT.flatten()
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
    chunk_tokens: int | None = None,
    never_ids: tuple[int, ...] = (),
    count: Tensor | None = None,
    vocabulary: VocabularyShare = WHOLE_VOCABULARY,
) -> Tensor:
    """`next_token_loss(hidden @ head.T, targets)` whose logits exist for `chunk_tokens` tokens at a time (None: what suits the device).

    The gradients are taken in the same pass, chunk by chunk, so that no logits are kept for the way back. Under autocast the products run
    in its dtype; the softmax is float32 always, and so is the sum of the head's gradient over the chunks. On a GPU the softmax and its
    gradient are one compiled (Triton) function of each chunk. `never_ids` are entries whose logits are -inf: they get no gradient, and a
    target among them makes the loss infinite, as the definition says.

    Over ranks: `vocabulary` says which entries the rows of this rank's head are, and `count` how many targets there are on all ranks (None:
    those given). The hidden states are copies, whose gradients are shares of a sum.
    """
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ModelError(f"chunk_tokens must be at least 1, or None for what suits the device; got {chunk_tokens}")
    device = hidden_BTD.device.type
    tokens = chunk_tokens or CHUNK_TOKENS.get(device, CHUNK_TOKENS_ELSEWHERE)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head_VD.dtype
    count = count_targets(targets_BT) if count is None else count
    return FusedLoss.apply(hidden_BTD, head_VD, targets_BT, z_loss, tokens, never_ids, dtype, count, vocabulary)  # type: ignore[no-any-return]


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
        dtype: torch.dtype,
        count: Tensor,
        vocabulary: VocabularyShare,
    ) -> Tensor:
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            needed = ctx.needs_input_grad[:2]
            total, grad_hidden_BTD, grad_head_VD = run_chunks(
                hidden_BTD, head_VD, targets_BT, z_loss, chunk_tokens, never_ids, dtype, needed, vocabulary
            )
        ctx.save_for_backward(grad_hidden_BTD, grad_head_VD, count)
        ctx.head_dtype = head_VD.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_BTD, grad_head_VD, count = ctx.saved_tensors
        # What was saved is the sum's gradient; never changed in place, since a graph may be gone back twice. A scale with a dim of its own
        # stays float32: rounded to bfloat16 it would make every value too large, or every one too small, by up to 1 part in 250.
        scale = (grads[0] / count)[None]
        hidden = None if grad_hidden_BTD is None else (grad_hidden_BTD * scale).to(grad_hidden_BTD.dtype)
        head = None if grad_head_VD is None else (grad_head_VD * scale).to(ctx.head_dtype)
        return hidden, head, None, None, None, None, None, None, None


def run_chunks(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    targets_BT: Tensor,
    z_loss: float,
    chunk_tokens: int,
    never_ids: tuple[int, ...],
    dtype: torch.dtype,
    needed: tuple[bool, bool],
    vocabulary: VocabularyShare,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The sum of all tokens' losses and its gradients for hidden and head, where `needed`; the head's is in float32 at least."""
    rows_D, targets = hidden_BTD.flatten(0, -2), targets_BT.flatten()
    weight_VD = head_VD.to(dtype)
    never = torch.tensor(never_ids, device=hidden_BTD.device) if never_ids else None
    wide = torch.promote_types(dtype, torch.float32)
    total = torch.zeros((), dtype=wide, device=hidden_BTD.device)
    grad_rows_D = torch.empty_like(rows_D) if needed[0] else None
    grad_head_VD = torch.zeros_like(head_VD, dtype=wide) if needed[1] else None
    softmax_gradient = softmax_of_chunk(hidden_BTD.device.type) if vocabulary.alone else softmax_of_share(vocabulary)
    for start in range(0, rows_D.shape[0], chunk_tokens):
        chunk_CD = rows_D[start : start + chunk_tokens].to(dtype)
        targets_C1 = targets[start : start + chunk_tokens, None]
        kept_C1 = targets_C1 != IGNORED
        logits_CV = functional.linear(chunk_CD, weight_VD)
        if never is not None:
            logits_CV.index_fill_(1, never, -torch.inf)
        # Only ignored targets get a stand-in: any other id outside the vocabulary is refused where it is looked up.
        losses_C1, grad_CV = softmax_gradient(logits_CV, torch.where(kept_C1, targets_C1, 0), z_loss, any(needed))
        total += torch.where(kept_C1, losses_C1, 0.0).sum()
        # Ignored tokens are left out on the narrow side of both products: the wide one is not gone through again.
        if grad_rows_D is not None:
            grad_rows_D[start : start + chunk_tokens] = (grad_CV @ weight_VD) * kept_C1
        if grad_head_VD is not None:
            add_product(grad_head_VD, grad_CV.T, chunk_CD * kept_C1)
    return (
        total,
        None if grad_rows_D is None else grad_rows_D.view_as(hidden_BTD),
        grad_head_VD,
    )


def widened(x: Tensor) -> Tensor:
    """In float32, or float64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def add_product(sum_VD: Tensor, left_VC: Tensor, right_CD: Tensor) -> None:
    """sum += left @ right, without a matrix in between where the dtypes agree."""
    if left_VC.dtype == sum_VD.dtype:
        sum_VD.addmm_(left_VC, right_CD)
    else:
        sum_VD += left_VC @ right_CD


# (logits_CV, targets_C1, z_loss, whether the gradient is wanted) -> each token's loss (C, 1) in float32, and its gradient (C, V).
SoftmaxGradient = Callable[[Tensor, Tensor, float, bool], tuple[Tensor, Tensor]]


def softmax_of_chunk(device: str) -> SoftmaxGradient:
    """Compiled on a GPU, in place on a CPU; inside a compiled model the plain form, which the compiler fuses with what is around it."""
    if torch.compiler.is_compiling():
        return softmax_gradient
    return softmax_gradient_in_place if device == "cpu" else compiled_softmax_gradient()


@cache
def compiled_softmax_gradient() -> SoftmaxGradient:
    """`softmax_gradient` as the kernels torch's compiler makes of it."""
    return torch.compile(softmax_gradient)


def softmax_gradient(logits_CV: Tensor, targets_C1: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor]:
    """As a definition, each step a new tensor; the gradient has the dtype of the logits."""
    wide_CV = widened(logits_CV)
    log_sum_C1 = wide_CV.logsumexp(-1, keepdim=True)
    losses_C1 = log_sum_C1 - wide_CV.gather(1, targets_C1) + z_loss * log_sum_C1.square()
    if not wanted:
        return losses_C1, logits_CV
    hit_CV = torch.arange(logits_CV.shape[1], device=logits_CV.device) == targets_C1
    grad_CV = (wide_CV - log_sum_C1).exp() * (1 + 2 * z_loss * log_sum_C1) - hit_CV.to(wide_CV.dtype)
    return losses_C1, grad_CV.to(logits_CV.dtype)


def softmax_gradient_in_place(logits_CV: Tensor, targets_C1: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor]:
    """`softmax_gradient` that writes over the logits. The sum of exponentials is had from the largest probability, which is its inverse."""
    wide_CV = widened(logits_CV)
    highest_C1, hit_C1 = wide_CV.amax(-1, keepdim=True), wide_CV.gather(1, targets_C1)
    torch.softmax(wide_CV, -1, out=wide_CV)
    log_sum_C1 = highest_C1 - wide_CV.amax(-1, keepdim=True).log()
    losses_C1 = log_sum_C1 - hit_C1 + z_loss * log_sum_C1.square()
    if not wanted:
        return losses_C1, wide_CV
    if z_loss:
        wide_CV.mul_(1 + 2 * z_loss * log_sum_C1)
    wide_CV.scatter_add_(1, targets_C1, torch.full_like(log_sum_C1, -1.0))
    return losses_C1, wide_CV.to(logits_CV.dtype)


def softmax_of_share(vocabulary: VocabularyShare) -> SoftmaxGradient:
    """`softmax_gradient` of logits that are a part of the vocabulary: two numbers per token go between the ranks."""

    def gradient_of_share(logits_Cv: Tensor, targets_C1: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor]:
        wide_Cv = widened(logits_Cv)
        log_sum_C1 = vocabulary.log_sum(wide_Cv.logsumexp(-1, keepdim=True))
        hit_Cv = vocabulary.hits(targets_C1)
        losses_C1 = log_sum_C1 - vocabulary.total(torch.where(hit_Cv, wide_Cv, 0.0).sum(-1, keepdim=True)) + z_loss * log_sum_C1.square()
        if not wanted:
            return losses_C1, logits_Cv
        grad_Cv = (wide_Cv - log_sum_C1).exp() * (1 + 2 * z_loss * log_sum_C1) - hit_Cv.to(wide_Cv.dtype)
        return losses_C1, grad_Cv.to(logits_Cv.dtype)

    return gradient_of_share
