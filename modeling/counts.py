"""Exact counts by formula: parameters, bytes, attended keys and floating-point operations. Imports no torch."""

from collections.abc import Sequence
from typing import Literal

from modeling.blocksparse_counts import needed_pairs
from modeling.config import DecoderConfig
from modeling.errors import ModelError

Convention = Literal["causal", "full"]


def layer_matrix_parameters(config: DecoderConfig) -> int:
    """Weights of one layer's matrices: fused query/key/value, output, fused gate/up, down."""
    heads, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return config.hidden_size * (heads + 2 * keys) + heads * config.hidden_size + 3 * config.hidden_size * config.intermediate_size


def layer_parameters(config: DecoderConfig) -> int:
    """Parameters of one layer: its matrices, their biases where they have any, and two norms."""
    heads, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    biases = heads + 2 * keys + 2 * config.intermediate_size + 2 * config.hidden_size if config.biased else 0
    return layer_matrix_parameters(config) + biases + 2 * norm_parameters(config)


def norm_parameters(config: DecoderConfig) -> int:
    """Parameters of one norm: a weight per feature, and a bias in LayerNorm."""
    return config.hidden_size * (2 if config.norm == "layer" else 1)


def embedding_parameters(config: DecoderConfig) -> int:
    """Parameters of the token embedding; an untied head has as many again."""
    return config.vocab_size * config.hidden_size


def count_parameters(config: DecoderConfig) -> int:
    """Parameters of the whole decoder, a tied head counted once."""
    embeddings = embedding_parameters(config) * (1 if config.tied else 2)
    return embeddings + config.num_layers * layer_parameters(config) + norm_parameters(config)


def kv_cache_bytes_per_token(config: DecoderConfig, bytes_per_value: int = 2) -> int:
    """Bytes of keys and values that one token leaves in the cache of all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_value


def window_pairs(length: int, window: int | None) -> int:
    """Query-key pairs of one document under causality and a window: W(W+1)/2 + (S-W)W for S >= W."""
    seen = length if window is None else min(length, window)
    return seen * (seen + 1) // 2 + (length - seen) * seen


def mean_keys(config: DecoderConfig, lengths: Sequence[int]) -> float:
    """Keys that a query sees, itself included: the mean over the tokens of documents of these lengths, over layers and over heads."""
    if not lengths or min(lengths) < 1:
        raise ModelError(f"document lengths must be at least one number of at least 1, got {list(lengths)[:5]}")
    pairs = 0.0
    sparse_layers = sum(config.sparse_in(layer) for layer in range(config.num_layers))
    for length in lengths:
        dense = window_pairs(length, config.window_keys)
        pairs += dense * (config.num_layers - sparse_layers)
        if config.blocksparse is not None and sparse_layers:
            pairs += needed_pairs(length, config.blocksparse, config.num_heads) * sparse_layers / config.num_heads
    return pairs / config.num_layers / sum(lengths)


def flops_per_token(config: DecoderConfig, context: int | Sequence[int], convention: Convention = "causal") -> float:
    """Floating-point operations of one training step, forward and backward, per token.

    6 (N + V h) + 12 L n_h d_h c: N the weights of the layers' matrices, V h the head, c the keys per query. "causal" counts the keys that
    a query sees (`mean_keys`); "full" counts all keys of its document, as much published work does. `context` is one length, or those
    of the documents of packed rows. Embedding look-up, norms, biases and recomputation are not counted.
    """
    lengths = [context] if isinstance(context, int) else list(context)
    if convention not in ("causal", "full"):
        raise ModelError(f"convention must be 'causal' or 'full', got {convention!r}")
    keys = mean_keys(config, lengths)
    if convention == "full":
        keys = sum(length * length for length in lengths) / sum(lengths)
    matrices = config.num_layers * layer_matrix_parameters(config) + embedding_parameters(config)
    return 6.0 * matrices + 12.0 * config.num_layers * config.num_heads * config.head_dim * keys
