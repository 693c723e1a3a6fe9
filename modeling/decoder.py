"""The decoder of the family: tokens in, one score per vocabulary entry and position out."""

# B batch, T tokens, S keys (tokens held and new), D width, V vocabulary. Over several ranks D is whole, T and V may be this rank's part.

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.backends import check_backend
from modeling.config import DecoderConfig
from modeling.constants import constant
from modeling.errors import ModelError
from modeling.kv_cache import KVCache
from modeling.layer import Layer
from modeling.loss import count_targets, fused_next_token_loss
from modeling.norm import build_norm
from modeling.parallel.placing import Place, check_place
from modeling.parallel.stream import ONE_RANK, Parallel, Stream
from modeling.parallel.sums import SumReduce
from modeling.parallel.vocabulary import VocabularyEmbedding, VocabularyHead, VocabularyShare
from modeling.recompute import check_recompute, run_layer
from modeling.rope import Factors, factors_for, rotary_tables
from modeling.visible import Visible, document_positions, document_runs


class Decoder(nn.Module):
    """A phi-3 decoder; its logits equal transformers' `Phi3ForCausalLM` bit for bit on a CPU.

    `attention` names the backend (`modeling.backends.BACKENDS`). `rope_factors` says which longrope set rotates: "auto" goes by the
    longest position of the batch as the reference does; training sets "short" or "long", because with packed rows one long document would
    otherwise change the numbers of every short one. `recompute` says what layers make again on the way back
    (`modeling.recompute.RECOMPUTE`). Parameters start as torch's defaults; `modeling.initialise.initialise` or
    `load_decoder` fills them.

    `parallel` says over which ranks the decoder lies (docs/parallel.md). All of them give the same whole rows and get the same loss or
    logits; each holds its part of the weights (`modeling.parallel.pieces.parameter_pieces`) and computes with its heads, features,
    vocabulary and tokens. Weights are shared over the axes "context" and "data", over which `sum_gradients` is due after the way back.
    """

    def __init__(
        self,
        config: DecoderConfig,
        attention: str = "sdpa",
        rope_factors: Literal["auto", "short", "long"] = "auto",
        recompute: str = "none",
        parallel: Parallel = ONE_RANK,
    ) -> None:
        super().__init__()
        check_place(config, parallel, check_backend(attention))
        if rope_factors not in ("auto", "short", "long"):
            raise ModelError(f"rope_factors must be 'auto', 'short' or 'long', got {rope_factors!r:.60}")
        self.config = config
        self.parallel = parallel
        self.backend = check_backend(attention)
        self.rope_factors = rope_factors
        self.recompute = check_recompute(recompute)
        self.run_layer = run_layer
        self.embedding = VocabularyEmbedding(config.vocab_size, config.hidden_size, parallel.tensor_group)
        self.layers = nn.ModuleList(Layer(config, number, parallel) for number in range(config.num_layers))
        self.norm = build_norm(config, parallel.spread)
        self.vocabulary = VocabularyShare(parallel.tensor_group, config.vocab_size)
        self.head = None if config.tied else VocabularyHead(config.vocab_size, config.hidden_size, parallel.tensor_group)

    def compile_layers(self, **options: Any) -> None:
        """Compiles the layers with torch.compile's `options`: one compilation serves all that are alike, recomputation included.

        Embedding, rotary tables, masks and loss stay as they are: each runs once per pass, and the loss is in chunks of its own.
        """
        self.run_layer = torch.compile(run_layer, **options)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) that scores the vocabulary: the embedding itself where the head is tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        padding_B: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) in the weights' dtype.

        ids_BT        integer token ids
        positions_BT  the place of each token; by default it counts from what the cache holds, or from each document's start
        documents_BT  integers that differ between neighbouring documents of a packed row; a token sees its own document only
        cache         tokens seen before; the new ones are added to it
        padding_B     how many tokens at the left of each row, cache included, are padding: never seen, and positions count after them
        """
        hidden_BTD, place = self._run(ids_BT, positions_BT, documents_BT, cache, padding_B)
        return place.join(self.logits(hidden_BTD))

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """The head alone: `hidden_states` (..., D), or a choice of its rows, to logits (..., V)."""
        logits_BTV = functional.linear(hidden_BTD, self.head_weight)
        dummies = self.vocabulary.here(self.config.dummy_ids)
        if dummies:
            logits_BTV = logits_BTV.index_fill(-1, constant(dummies, torch.int64, hidden_BTD.device), -torch.inf)
        return self.vocabulary.gather(logits_BTV)

    def loss(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        z_loss: float = 0.0,
        chunk_tokens: int | None = None,
    ) -> Tensor:
        """`next_token_loss` of the logits, without ever holding more than `chunk_tokens` rows of them (None: what suits the device)."""
        hidden_BTD, place = self._run(ids_BT, positions_BT, documents_BT)
        share = fused_next_token_loss(
            hidden_BTD,
            self.head_weight,
            place.cut(targets_BT),
            z_loss=z_loss,
            chunk_tokens=chunk_tokens,
            never_ids=self.vocabulary.here(self.config.dummy_ids),
            count=count_targets(targets_BT),
            vocabulary=self.vocabulary,
        )
        return SumReduce(self.parallel.context_group)(share)

    def hidden_states(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        padding_B: Tensor | None = None,
    ) -> Tensor:
        """What the head reads, (B, T, D), of this rank's tokens; arguments as in `forward`.

        Over "tensor" these are copies, as the head's rows use them: a gradient given here is a share, which the ranks' shares add up with.
        """
        return self._run(ids_BT, positions_BT, documents_BT, cache, padding_B)[0]

    def _run(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        padding_B: Tensor | None = None,
    ) -> tuple[Tensor, Place]:
        tokens = self._check(ids_BT, positions_BT, documents_BT, cache, padding_B)
        held = 0 if cache is None else cache.length
        runs_BT = None if documents_BT is None else document_runs(documents_BT)
        if positions_BT is None:
            positions_BT = torch.arange(held, held + tokens, device=ids_BT.device)[None] if runs_BT is None else document_positions(runs_BT)
            if padding_B is not None:
                positions_BT = (positions_BT - padding_B[:, None]).clamp(min=0)
        factors = self._factors(positions_BT, cache)
        place = Place(self.config, self.parallel, tokens)
        x_BTD = self.embed(place.cut(ids_BT), place.stream)
        device = ids_BT.device.type
        # Queries and keys leave their products in autocast's dtype; tables of the same dtype keep the rotation from widening them.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BTD.dtype
        tables = rotary_tables(self.config, place.cut(positions_BT), factors, dtype)
        kept = 0 if cache is None else cache.kept(tokens)
        # Keys that the cache has let go were the leftmost ones, padding among them.
        first_B = None if padding_B is None else (padding_B - (held - kept)).clamp(min=0)
        visible = Visible(num_queries=tokens, num_keys=kept + tokens, window_keys=self.config.window_keys, runs_BT=runs_BT, first_B=first_B)
        attend = place.attend(self.backend, visible, ids_BT.device)
        for layer in self.layers:
            x_BTD = self.run_layer(layer, self.recompute, x_BTD, tables, attend, cache, place.stream)
        if cache is not None:
            cache.factors = factors
            cache.advance(tokens)
        hidden_BTD = place.stream.enter(self.norm(x_BTD))
        # Dividing here is dividing the logits: exact for a power of two, as phi-3-small's 8 is.
        return (hidden_BTD if self.config.logits_divisor == 1.0 else hidden_BTD / self.config.logits_divisor), place

    def embed(self, ids_BT: Tensor, stream: Stream) -> Tensor:
        """What the first layer reads, (B, T, D), or this rank's part of the tokens."""
        x_BTD = self.embedding(ids_BT, stream)
        if self.config.embedding_multiplier != 1.0:
            x_BTD = x_BTD * self.config.embedding_multiplier
        return functional.dropout(x_BTD, self.config.embedding_dropout, self.training) if self.config.embedding_dropout else x_BTD

    def _factors(self, positions_BT: Tensor, cache: KVCache | None) -> Factors:
        factors = factors_for(self.config, positions_BT) if self.rope_factors == "auto" else cast(Factors, self.rope_factors)
        if cache is not None and cache.factors == "long" and self.rope_factors == "auto":
            factors = "long"  # the whole text decides, of which these may be the first tokens
        if cache is not None and cache.factors not in (None, factors):
            raise ModelError(
                f"the cache was filled with {cache.factors} rope factors and from position {self.config.original_positions} on "
                f"they are {factors}; reset it and give the whole text again"
            )
        return factors

    def _check(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None,
        documents_BT: Tensor | None,
        cache: KVCache | None,
        padding_B: Tensor | None,
    ) -> int:
        """Shapes only: reading values would stall an accelerator."""
        if ids_BT.ndim != 2 or ids_BT.shape[1] == 0:
            raise ModelError(f"ids must be (batch, tokens) with at least one token, got the shape {tuple(ids_BT.shape)}")
        batch, tokens = ids_BT.shape
        held = 0 if cache is None else cache.length
        if held + tokens > self.config.max_positions:
            raise ModelError(f"{held + tokens} tokens are longer than max_positions={self.config.max_positions}")
        for name, given in (("positions", positions_BT), ("documents", documents_BT)):
            if given is not None and given.shape not in ((batch, tokens), (1, tokens)):
                raise ModelError(f"{name} have the shape {tuple(given.shape)} where ids have {(batch, tokens)}")
        if padding_B is not None and padding_B.shape != (batch,):
            raise ModelError(f"padding has the shape {tuple(padding_B.shape)} where one number for each of {batch} rows is needed")
        if padding_B is not None and documents_BT is not None:
            raise ModelError("packed rows have no padding on the left; number it as a document of its own")
        if cache is not None and self.parallel.tensor_group.size * self.parallel.context_group.size > 1:
            raise ModelError("decoding with a cache is for one rank; load the decoder on one")
        if padding_B is not None and self.parallel.context_group.size > 1:
            raise ModelError("rows padded on the left cannot be split by tokens; use the axis 'tensor'")
        if cache is not None:
            if documents_BT is not None:
                raise ModelError("packed documents cannot be decoded with a cache; give each document its own row")
            cache.check_room(batch, tokens)
        return tokens
