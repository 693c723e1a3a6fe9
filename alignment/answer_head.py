"""The output layer at answer positions only.

trl asks the model for per-token log-probabilities (`fused_lm_head=True`). Off the GPU its own head computes every position of every
row in tiles and recomputes them backward, though only answers carry a loss. Here the hidden states of the answers are gathered first;
the numbers are the same (a test compares them), and a step takes well under half the time at a vocabulary of 4,096.

Shapes: B rows, T tokens, D width, N answer tokens of the batch, V vocabulary.
"""

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

from alignment.masking import IGNORED

# Above this many logits trl's tiles are kept, since all of them at once would take over half a GiB for each of a few copies.
MOST_LOGITS = 2**27


def score_answers_only(model: Any) -> None:
    """Replaces the head that trl's trainer put on `model`; other calls of the model are left as they were."""
    trl_forward = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        head = self.get_output_embeddings()
        if not fused_lm_head or labels is None or int((labels[:, 1:] != IGNORED).sum()) * head.weight.shape[0] > MOST_LOGITS:
            return trl_forward(*args, fused_lm_head=fused_lm_head, labels=labels, num_items_in_batch=num_items_in_batch, **kwargs)
        kwargs["use_cache"] = False
        hidden_BTD = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        target_BT = labels[:, 1:]
        mask_BT = target_BT != IGNORED
        # float32 even under bfloat16 autocast: DPO's margins are differences of nearly equal sums of log-probabilities.
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            logits_NV = F.linear(hidden_BTD[mask_BT].float(), head.weight.float(), head.bias)
        return answer_scores(logits_NV, target_BT[mask_BT], mask_BT, num_items_in_batch)

    model.forward = types.MethodType(forward, model)


def answer_scores(logits_NV: Tensor, target_N: Tensor, mask_BT: Tensor, num_items_in_batch: Any) -> FusedCausalLMOutput:
    """What trl's trainers read: each field (B, T), zero where no answer stands; a gradient through the log-probabilities only."""
    logprobs_NV = logits_NV.log_softmax(-1)
    logprob_N = logprobs_NV.gather(-1, target_N[:, None])[:, 0]
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
        mean_logit_N = logits_NV.mean(-1)
        is_top1_N = logits_NV.argmax(-1) == target_N

    def spread(values_N: Tensor) -> Tensor:
        return values_N.new_zeros(mask_BT.shape).masked_scatter(mask_BT, values_N)

    logprob_BT = spread(logprob_N)
    count = mask_BT.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return FusedCausalLMOutput(
        loss=-logprob_BT.sum() / count,
        log_probs=logprob_BT,
        entropy=spread(entropy_N),
        mean_logits=spread(mean_logit_N),
        is_top1=spread(is_top1_N),
        label_mask=mask_BT,
    )
