"""The sides of the step benchmarks: ours, transformers' Phi3ForCausalLM and a plain torch decoder, from the same weights.

A side owns weights and their optimizer. Its ways to run, such as eager and compiled, share both, so that all of them take the same step.
"""

# B rows, T tokens, V vocabulary.

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Phi3Config, Phi3ForCausalLM

from benchmarks.step.plain import PlainDecoder
from benchmarks.step.rows import IGNORED, Batch
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.hf_config import config_to_hf
from modeling.hf_layout import hf_name, layout_of
from modeling.initialise import initialise
from modeling.visible import document_bounds, document_runs

Loss = Callable[[Batch], Tensor]
CLIP = 1.0
ADAMW: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "fused": True}


@dataclass
class Side:
    """`ways` are the losses of one batch, by how the model is run; `parameters` are common to them."""

    name: str
    parameters: list[nn.Parameter]
    ways: dict[str, Loss] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.parameters, **ADAMW)

    def step(self, way: str, batch: Batch, bfloat16: bool) -> tuple[Tensor, Tensor]:
        """Forward, loss, backward, clip, AdamW, gradients freed. Returns the loss and the gradient norm before clipping."""
        with autocast(batch, bfloat16):
            loss = self.ways[way](batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), norm

    def gradient_norm(self, way: str, batch: Batch, bfloat16: bool) -> tuple[float, float]:
        """Loss and gradient norm without a step."""
        with autocast(batch, bfloat16):
            loss = self.ways[way](batch)
        loss.backward()
        norm = gradient_norm(self.parameters)
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm.item()


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The joint Euclidean norm, in float32 whatever the gradients' dtype."""
    norms = [torch.linalg.vector_norm(one.grad, dtype=torch.float32) for one in parameters if one.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms))


def label(side: Side, way: str) -> str:
    """What a way of a side is called in records."""
    return f"{side.name}, {way}"


def autocast(batch: Batch, bfloat16: bool) -> Any:
    return torch.autocast(batch.ids_BT.device.type, torch.bfloat16) if bfloat16 else nullcontext()


def our_side(config: DecoderConfig, weights: dict[str, Tensor], compiled: bool) -> Side:
    """Eager, and with each layer compiled."""
    first = filled(Decoder(config, rope_factors="short"), weights)
    side = Side("phial", list(first.parameters()), {"eager": our_loss(first)})
    if compiled:
        second = sharing(first, Decoder(config, rope_factors="short"))
        second.compile_layers(dynamic=False)
        side.ways["compiled layers"] = our_loss(second)
    return side


def our_loss(decoder: Decoder) -> Loss:
    """Documents are told to the decoder where rows are packed. A padded row needs no mask: nothing real comes after its padding."""

    def loss(batch: Batch) -> Tensor:
        packed = batch.kind == "packed"
        return decoder.loss(
            batch.ids_BT,
            batch.targets_BT,
            positions_BT=batch.positions_BT if packed else None,
            documents_BT=batch.documents_BT if packed else None,
        )

    return loss


def their_config(config: DecoderConfig, attention: str, dtype: str = "float32") -> Phi3Config:
    """Our configuration as transformers reads it, with that attention implementation."""
    settings = config_to_hf(config, dtype)
    for name in ("architectures", "model_type", "torch_dtype"):
        settings.pop(name)
    # Without a pad id their embedding would look for row 32000, or keep a row from being learnt.
    theirs: dict[str, Any] = {**settings, "pad_token_id": None, "attn_implementation": attention}
    return Phi3Config(**theirs)


def their_side(config: DecoderConfig, weights: dict[str, Tensor], compiled: bool, attention: str = "sdpa") -> Side:
    """Eager, each layer compiled, and the whole model compiled.

    Whole, their mask code cannot see while it is traced that a row holds one document, and builds a mask that the other two do without.
    """
    theirs = their_names(config, weights)
    settings = their_config(config, attention)
    first = filled(Phi3ForCausalLM(settings), theirs).train()
    side = Side("transformers", list(first.parameters()), {"eager": their_loss(first)})
    if compiled:
        layers = sharing(first, Phi3ForCausalLM(settings)).train()
        for layer in layers.model.layers:
            layer.compile(dynamic=False)
        whole: Any = torch.compile(sharing(first, Phi3ForCausalLM(settings)).train(), dynamic=False)
        side.ways |= {"compiled layers": their_loss(layers), "compiled whole": their_loss(whole)}
    return side


def their_names(config: DecoderConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights by transformers' names, which list a tied head too."""
    theirs = {hf_name(name, layout_of(config)): weight for name, weight in weights.items()}
    return theirs | ({"lm_head.weight": theirs["model.embed_tokens.weight"]} if config.tied else {})


def their_loss(model: Any, attention: str = "sdpa") -> Loss:
    """Positions that start anew, without an attention mask, are their way to keep packed documents apart: see `masking_utils`.

    Their flash attention reads positions of a single row only; of several it must be told where documents begin, see `flash_bounds`.
    """

    def loss(batch: Batch) -> Tensor:
        packed = batch.kind == "packed"
        bounds = flash_bounds(batch) if packed and attention.startswith("flash") else {}
        out = model(
            input_ids=batch.ids_BT,
            position_ids=batch.positions_BT if packed else None,
            labels=batch.targets_BT,
            shift_labels=batch.targets_BT,
            use_cache=False,
            **bounds,
        )
        return out.loss

    return loss


def flash_bounds(batch: Batch) -> dict[str, Any]:
    """`FlashAttentionKwargs` of transformers, made once for all layers.

    The longest document is given as the row's length, as ours does: a bound serves, and the device is not waited for in every layer.
    """
    bounds_D = document_bounds(document_runs(batch.documents_BT))
    tokens = batch.ids_BT.shape[1]
    return {"cu_seq_lens_q": bounds_D, "cu_seq_lens_k": bounds_D, "max_length_q": tokens, "max_length_k": tokens}


def plain_side(config: DecoderConfig, weights: dict[str, Tensor]) -> Side:
    """Eager only."""
    model = filled(PlainDecoder(config), weights)

    def loss(batch: Batch) -> Tensor:
        packed = batch.kind == "packed"
        positions_BT = batch.positions_BT if packed else torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)[None]
        logits_BTV = model(batch.ids_BT, positions_BT, batch.documents_BT if packed else None)
        return functional.cross_entropy(logits_BTV.flatten(0, 1).float(), batch.targets_BT.flatten(), ignore_index=IGNORED)

    return Side("plain torch", list(model.parameters()), {"eager": loss})


def first_weights(config: DecoderConfig, seed: int = 0) -> dict[str, Tensor]:
    """What every side starts from, by our names, float32."""
    decoder = initialise(Decoder(config), torch.Generator().manual_seed(seed))
    return {name: weight.detach() for name, weight in decoder.named_parameters()}


def filled(model: Any, weights: dict[str, Tensor]) -> Any:
    """The model with those weights copied in; names must agree exactly."""
    model.load_state_dict(weights, strict=True)
    return model


def sharing(first: nn.Module, second: Any) -> Any:
    """`second` with the very parameters of `first`."""
    second.load_state_dict(first.state_dict(keep_vars=True), strict=True, assign=True)
    return second
