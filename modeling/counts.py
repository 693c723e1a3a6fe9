"""Exact counts by formula: parameters and bytes. Imports no torch."""

from modeling.config import DecoderConfig


def layer_parameters(config: DecoderConfig) -> int:
    """Parameters of one layer: fused query/key/value, output, fused gate/up, down, and two norms."""
    width = config.hidden_size
    heads = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    attention = width * (heads + 2 * keys) + heads * width
    feed_forward = 3 * width * config.intermediate_size
    return attention + feed_forward + 2 * width


def embedding_parameters(config: DecoderConfig) -> int:
    """Parameters of the token embedding; an untied head has as many again."""
    return config.vocab_size * config.hidden_size


def count_parameters(config: DecoderConfig) -> int:
    """Parameters of the whole decoder, a tied head counted once."""
    embeddings = embedding_parameters(config) * (1 if config.tied else 2)
    return embeddings + config.num_layers * layer_parameters(config) + config.hidden_size


def kv_cache_bytes_per_token(config: DecoderConfig, bytes_per_value: int = 2) -> int:
    """Bytes of keys and values that one token leaves in the cache of all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_value
