"""A decoder in torch as a model to score: a Hugging Face Phi3 folder or one of our checkpoints."""

# B rows of a batch, T tokens, S keys, V vocabulary, R rows that continue a batch, W wanted positions, D width.

import torch
from torch import Tensor

from eval.models import Identity, Model, as_float
from eval.text import TextSide
from modeling.decoder import Decoder
from modeling.decoding import Decoding
from modeling.rope import factors_of_length


class DecoderModel(Model):
    """Contexts are read once into a key/value cache; continuations read a copy of their context's keys. The head runs where it is asked."""

    def __init__(self, identity: Identity, text: TextSide, decoder: Decoder, batch_tokens: int = 8192) -> None:
        super().__init__(identity, text, decoder.config.max_positions, batch_tokens)
        self.decoder = decoder.eval()

    def alike(self, length: int, longest: int) -> bool:
        config = self.decoder.config
        return factors_of_length(config, length) == factors_of_length(config, longest)

    @torch.inference_mode()
    def prefill(self, ids_BT: Tensor, room: int) -> tuple[Decoding, Tensor]:
        state = Decoding(self.decoder, ids_BT.shape[0], ids_BT.shape[1] + room)
        return state, as_float(state.feed(ids_BT))

    @torch.inference_mode()
    def extend(self, state: Decoding, rows_R: Tensor, ids_RT: Tensor, wanted_RT: Tensor) -> Tensor:
        rows_R, wanted_RT = self.placed(rows_R), self.placed(wanted_RT)
        cache = state.cache.take(rows_R, state.length + ids_RT.shape[1])
        hidden_RTD = self.decoder.hidden_states(self.placed(ids_RT), cache=cache)
        return as_float(self.decoder.logits(hidden_RTD[wanted_RT]))

    @torch.inference_mode()
    def step(self, state: Decoding, ids_B: Tensor) -> Tensor:
        return as_float(state.feed(ids_B[:, None]))

    @torch.inference_mode()
    def whole(self, ids_BT: Tensor) -> Tensor:
        return as_float(self.decoder(self.placed(ids_BT)))

    def placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.decoder.embedding.weight.device)
