"""A decoder in torch as a model to score: a Hugging Face Phi3 folder or one of our checkpoints."""

# B rows of a batch, T tokens, S keys, V vocabulary, R rows that continue a batch, W wanted positions, D width.

import torch
from torch import Tensor
from torch.nn import functional

from eval.models import Identity, Model, as_float
from eval.text import TextSide
from modeling.decoder import Decoder
from modeling.kv_cache import KVCache


class DecoderModel(Model):
    """Contexts are read once into a key/value cache; continuations read a copy of their context's keys. The head runs where it is asked."""

    def __init__(self, identity: Identity, text: TextSide, decoder: Decoder, batch_tokens: int = 8192) -> None:
        super().__init__(identity, text, decoder.config.max_positions, batch_tokens)
        self.decoder = decoder.eval()

    def cache(self, batch: int, capacity: int) -> KVCache:
        weight = self.decoder.embedding.weight
        return KVCache(self.decoder.config, batch, capacity, dtype=weight.dtype, device=weight.device)

    def alike(self, length: int, longest: int) -> bool:
        config = self.decoder.config
        return config.rope_scaling is None or (length > config.original_positions) == (longest > config.original_positions)

    @torch.inference_mode()
    def prefill(self, ids_BT: Tensor, room: int) -> tuple[KVCache, Tensor]:
        cache = self.cache(ids_BT.shape[0], ids_BT.shape[1] + room)
        hidden_BTD = self.decoder.hidden_states(self.placed(ids_BT), cache=cache)
        return cache, self.head(hidden_BTD[:, -1])

    @torch.inference_mode()
    def extend(self, state: KVCache, rows_R: Tensor, ids_RT: Tensor, wanted_RT: Tensor) -> Tensor:
        held = state.length
        cache = self.cache(len(rows_R), held + ids_RT.shape[1])
        rows_R, wanted_RT = self.placed(rows_R), self.placed(wanted_RT)
        cache.keys[:, :, :, :held] = state.keys[:, rows_R, :, :held]
        cache.values[:, :, :, :held] = state.values[:, rows_R, :, :held]
        cache.length, cache.factors = held, state.factors
        hidden_RTD = self.decoder.hidden_states(self.placed(ids_RT), cache=cache)
        return self.head(hidden_RTD[wanted_RT])

    @torch.inference_mode()
    def step(self, state: KVCache, ids_B: Tensor) -> Tensor:
        return self.head(self.decoder.hidden_states(self.placed(ids_B)[:, None], cache=state)[:, -1])

    @torch.inference_mode()
    def whole(self, ids_BT: Tensor) -> Tensor:
        return as_float(self.decoder(self.placed(ids_BT)))

    def head(self, hidden_WD: Tensor) -> Tensor:
        """Logits (W, V)."""
        return as_float(functional.linear(hidden_WD, self.decoder.head_weight))

    def placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.decoder.embedding.weight.device)
