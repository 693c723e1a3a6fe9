"""Keys and values of the tokens seen so far, so that a new token costs one step instead of the whole text."""

# B batch, K key/value heads, T new tokens, S tokens held, H features per head.

import torch
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.errors import ModelError


class KVCache:
    """Room for `capacity` tokens in every layer, filled in place.

    `factors` remembers which longrope set rotated the keys: they cannot be mixed, so a decoder refuses to go on with the other.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= capacity <= config.max_positions:
            raise ModelError(f"a cache holds 1 to max_positions={config.max_positions} tokens, got capacity={capacity}")
        shape = (config.num_layers, batch_size, config.num_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self.batch_size = batch_size
        self.length = 0
        self.factors: str | None = None

    def reset(self) -> None:
        """Forgets everything; the memory is kept."""
        self.length = 0
        self.factors = None

    def check_room(self, batch_size: int, num_tokens: int) -> None:
        """Refuses what does not fit, before any layer has written."""
        if batch_size != self.batch_size:
            raise ModelError(f"the cache was made for batch_size={self.batch_size}, got a batch of {batch_size}")
        if self.length + num_tokens > self.capacity:
            raise ModelError(f"the cache holds {self.capacity} tokens; {self.length} are there and {num_tokens} more came")

    def write(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Puts the new tokens behind those held; returns all keys and values, (B, K, S, H). `advance` counts them once per forward pass."""
        end = self.length + k_BKTH.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BKTH
        self.values[layer, :, :, self.length : end] = v_BKTH
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens that every layer has written."""
        self.length += num_tokens
