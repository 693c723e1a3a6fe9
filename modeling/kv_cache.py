"""Keys and values of the tokens seen so far, so that a new token costs one step instead of the whole text."""

# B batch, K key/value heads, T new tokens, S tokens held and new, H features per head, R chosen rows.

import torch
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.errors import ModelError

# Rows that a windowed cache holds beyond its window: the window moves to the front once per so many tokens, not at every one.
SLACK = 256


class KVCache:
    """Room for texts of `capacity` tokens in every layer, filled in place.

    Under a window, keys that no later query can see are let go: at most window_keys - 1 + 256 tokens are held, however long the text.
    `length` counts the tokens of the text, `held` those whose keys are here. `factors` remembers which longrope set rotated the keys: they
    cannot be mixed, so a decoder refuses to go on with the other. A pass that is broken off between two layers leaves `length`, `held` and
    the keys that they count as they were, unless it was moving the window: then `half_moved` stays true, and only `reset` helps.
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
        self.config = config
        # A query sees this many keys before its own; None: all.
        self.reach = None if config.window_keys is None else config.window_keys - 1
        self.rows = capacity if self.reach is None else min(capacity, self.reach + SLACK)
        shape = (config.num_layers, batch_size, config.num_kv_heads, self.rows, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self.batch_size = batch_size
        self.length = 0
        self.held = 0
        self.half_moved = False
        self.factors: str | None = None

    def reset(self) -> None:
        """Forgets everything; the memory is kept."""
        self.length = self.held = 0
        self.half_moved = False
        self.factors = None

    def check_room(self, batch_size: int, num_tokens: int) -> None:
        """Refuses what does not fit, before any layer has written."""
        if batch_size != self.batch_size:
            raise ModelError(f"the cache was made for batch_size={self.batch_size}, got a batch of {batch_size}")
        if self.half_moved:
            raise ModelError("the pass that moved the cache's window was broken off; reset it and give the whole text again")
        if self.length + num_tokens > self.capacity:
            raise ModelError(f"the cache holds {self.capacity} tokens; {self.length} are there and {num_tokens} more came")

    def kept(self, num_tokens: int) -> int:
        """How many of the held tokens stay visible when `num_tokens` more come: all while there is room, else those within reach."""
        if self.reach is None or self.held + num_tokens <= self.rows:
            return self.held
        return min(self.held, self.reach)

    def write(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Puts the new tokens behind those kept; returns all their keys and values, (B, K, S, H), S = kept + T.

        `advance` counts the new tokens, once per forward pass.
        """
        return self._append(self.keys[layer], k_BKTH), self._append(self.values[layer], v_BKTH)

    def _append(self, buffer_BKSH: Tensor, new_BKTH: Tensor) -> Tensor:
        tokens = new_BKTH.shape[2]
        kept, end = self.kept(tokens), self.held + tokens
        if kept == self.held and end <= self.rows:
            buffer_BKSH[:, :, self.held : end] = new_BKTH
            return buffer_BKSH[:, :, :end]
        all_BKSH = torch.cat((buffer_BKSH[:, :, self.held - kept : self.held], new_BKTH), dim=2)
        stays = self._stays(tokens)
        self.half_moved = True
        buffer_BKSH[:, :, :stays] = all_BKSH[:, :, all_BKSH.shape[2] - stays :]
        return all_BKSH

    def _stays(self, num_tokens: int) -> int:
        """Tokens held after `num_tokens` more."""
        if self.reach is None or self.held + num_tokens <= self.rows:
            return self.held + num_tokens
        return min(self.kept(num_tokens) + num_tokens, self.reach)

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens that every layer has written."""
        self.held, self.length = self._stays(num_tokens), self.length + num_tokens
        self.half_moved = False

    def rewind(self, length: int) -> bool:
        """Forgets the tokens after the first `length`; False, with nothing changed, where keys that these need are not here."""
        held = self.held - (self.length - length)
        if self.half_moved or length > self.length or held < (length if self.reach is None else min(length, self.reach)):
            return False
        self.held, self.length = held, length
        return True

    def take(self, rows_R: Tensor, capacity: int) -> "KVCache":
        """A cache of other rows: row r of it is a copy of this one's row rows_R[r]; this one stays as it is."""
        other = KVCache(self.config, len(rows_R), max(capacity, self.length), self.keys.dtype, self.keys.device)
        stays = min(self.held, other.rows)
        other.keys[:, :, :, :stays] = self.keys[:, rows_R, :, self.held - stays : self.held]
        other.values[:, :, :, :stays] = self.values[:, rows_R, :, self.held - stays : self.held]
        other.length, other.held, other.factors, other.half_moved = self.length, stays, self.factors, self.half_moved
        return other
