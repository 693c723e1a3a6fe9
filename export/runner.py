"""The graph inside onnxruntime: fed in chunks, its key/value cache kept in place between calls.

The cache is one buffer per layer and part that is bound as past and as present at once, so a token writes its row and nothing is copied.
Tokens already in the cache are not fed again: a prompt that begins as the last one did continues from there.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from data_pipeline.errors import InputError

# Tokens fed at once; bounds the memory of logits and attention scores for long prompts.
CHUNK = 256
SMALLEST_CAPACITY = 256
# Logits that one scoring call may hold, in values.
SCORING_VALUES = 1 << 24


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """An onnxruntime session on the CPU; `threads` 0 leaves the number to onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise InputError(f"{path}: onnxruntime {ort.__version__} does not open it ({' '.join(str(error).split())[:200]})") from error


class Runner:
    """One sequence at a time with a cache, or whole batches without one."""

    def __init__(self, path: Path, manifest: dict[str, Any], threads: int = 0) -> None:
        shape = manifest["limits"]["kv_shape"]
        self.session = open_session(path, threads)
        self.context: int = manifest["limits"]["context"]
        self.num_kv_heads, self.head_dim = int(shape[1]), int(shape[3])
        self.vocab_size: int = manifest["architecture"]["vocab_size"]
        self.past_names = [one.name for one in self.session.get_inputs() if one.name.startswith("past_key_values.")]
        self.capacity = 0
        self.buffers: dict[str, np.ndarray] = {}
        self.cached: list[int] = []  # the tokens whose keys and values are in the buffers

    def reserve(self, tokens: int) -> None:
        """Room for so many positions; grows by doubling and keeps what is cached."""
        if tokens <= self.capacity:
            return
        capacity = SMALLEST_CAPACITY
        while capacity < tokens:
            capacity *= 2
        capacity = max(tokens, min(capacity, self.context))
        kept = len(self.cached)
        for name in self.past_names:
            buffer = np.zeros((1, self.num_kv_heads, capacity, self.head_dim), np.float32)
            if kept:
                buffer[:, :, :kept] = self.buffers[name][:, :, :kept]
            self.buffers[name] = buffer
        self.capacity = capacity

    def forget(self) -> None:
        """Empties the cache."""
        self.cached = []

    def prefill(self, ids: list[int]) -> np.ndarray:
        """Feeds a whole prompt; the part that the cache begins with is skipped. Returns the logits after its last token, float32 (V,)."""
        same = 0
        for ours, theirs in zip(self.cached, ids, strict=False):
            if ours != theirs:
                break
            same += 1
        self.cached = self.cached[: min(same, len(ids) - 1)]
        logits = np.empty(0, np.float32)
        for start in range(len(self.cached), len(ids), CHUNK):
            logits = self.feed(ids[start : start + CHUNK])
        return logits

    def feed(self, ids: list[int]) -> np.ndarray:
        """Appends tokens to the cache; returns the logits after the last of them, float32 (V,)."""
        past, total = len(self.cached), len(self.cached) + len(ids)
        if total > self.context:
            raise InputError(f"{total} tokens do not fit the package's context of {self.context}")
        self.reserve(total)
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        for name, buffer in self.buffers.items():
            place = (np.float32, buffer.shape, buffer.ctypes.data)
            binding.bind_input(name, "cpu", 0, *place)
            binding.bind_output(name.replace("past_key_values", "present"), "cpu", 0, *place)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        self.cached = [*self.cached[:past], *ids]
        return binding.get_outputs()[-1].numpy()[0, -1]

    def score(self, ids_BT: np.ndarray) -> np.ndarray:
        """Logits of every position without a cache, float32 (B, T, V)."""
        batch, tokens = ids_BT.shape
        if tokens > self.context:
            raise InputError(f"{tokens} tokens do not fit the package's context of {self.context}")
        feed: dict[str, np.ndarray] = {"input_ids": ids_BT.astype(np.int64), "attention_mask": np.ones((batch, tokens), np.int64)}
        for name in self.past_names:
            feed[name] = np.zeros((batch, self.num_kv_heads, 0, self.head_dim), np.float32)
        return self.session.run(["logits"], feed)[0]  # type: ignore[return-value]

    def score_rows(self, rows: list[list[int]]) -> list[np.ndarray]:
        """Logits of rows of different lengths, float32 (T, V) each, in the order given.

        Rows of like length run together, padded on the right: attention looks back only, so what stands behind a row changes nothing in it.
        """
        answers: list[np.ndarray] = [np.empty((0, self.vocab_size), np.float32)] * len(rows)
        order = sorted((number for number in range(len(rows)) if rows[number]), key=lambda number: len(rows[number]))
        while order:
            longest = len(rows[order[-1]])
            count = max(1, SCORING_VALUES // (longest * self.vocab_size))
            group, order = order[-count:], order[:-count]
            ids_BT = np.zeros((len(group), longest), np.int64)
            for row, number in enumerate(group):
                ids_BT[row, : len(rows[number])] = rows[number]
            logits_BTV = self.score(ids_BT)
            for row, number in enumerate(group):
                answers[number] = logits_BTV[row, : len(rows[number])].copy()
        return answers
