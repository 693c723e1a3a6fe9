"""The three decoders on up to 512 GPUs: seconds of a step by counted operations and bytes and the constants of `gpu_model`. Modelled."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scaling_parts.gpu_model import DECODER_FRACTION, H200, NODE, NVLINK, gather_across_seconds, gather_seconds
from benchmarks.scaling_parts.sent_bytes import context_bytes
from modeling.config import DecoderConfig
from modeling.counts import count_parameters, flops_per_token
from modeling.presets import PRESETS

# Member of the family -> (preset, tokens of a row when it was trained).
DECODERS = {"mini": ("phi3-mini-4k", 4096), "small": ("phi3-small-8k", 8192), "medium": ("phi3-medium-4k", 4096)}
GPUS = (8, 16, 32, 64, 128, 256, 512)
STEP_TOKENS = 4_194_304  # of a strong-scaling step, whatever the number of GPUs
GPU_TOKENS = 16_384  # of a weak-scaling step, per GPU
LONG_ROW, WINDOW = 131_072, 2047
BF16 = 2


@dataclass(frozen=True)
class Modelled:
    """One step: seconds of computing and of communication, per GPU."""

    compute: float
    communication: float

    @property
    def efficiency(self) -> float:
        """Against as many GPUs that need not communicate."""
        return self.compute / (self.compute + self.communication)


def compute_seconds(config: DecoderConfig, tokens: float, row: int) -> float:
    """So many tokens in rows of that length, forward and backward, nothing recomputed."""
    return tokens * flops_per_token(config, row) / (DECODER_FRACTION * H200.bf16)


def data_parallel(config: DecoderConfig, gpus: int, tokens: float, row: int) -> Modelled:
    """ZeRO-2: bfloat16 gradients are reduce-scattered and bfloat16 weights gathered, once a step."""
    return Modelled(compute_seconds(config, tokens, row), 2 * gather_seconds(BF16 * count_parameters(config), gpus))


def tensor_parallel(config: DecoderConfig, gpus: int, tokens: float, row: int) -> Modelled:
    """Tensor and sequence parallelism over a node, data parallelism across nodes: per layer 4 gathers and 4 reduce-scatters of the stream.

    `tokens` are per GPU, so a node's stream has 8 times as many; rows go through one after another.
    """
    rows = NODE * tokens / row
    one = gather_seconds(row * config.hidden_size * BF16, NODE)
    stream = 8 * config.num_layers * rows * one
    weights = 2 * gather_across_seconds(BF16 * count_parameters(config) / NODE, max(1, gpus // NODE))
    return Modelled(compute_seconds(config, tokens, row), stream + weights)


def context_parallel(config: DecoderConfig, gpus: int, kind: str) -> Modelled:
    """A row of 131,072 tokens per node under a window of 2,047 keys, keys moving over NVLink; weights as under data parallelism.

    The ring moves all keys, whatever the window; it too computes only the blocks in which a key is seen.
    """
    config = replace(config, window_keys=WINDOW, max_positions=LONG_ROW)
    per_token = 2 * config.num_kv_heads * config.head_dim
    sent = max(sum(context_bytes(rank, LONG_ROW, WINDOW, NODE, per_token, BF16)[kind]) for rank in range(NODE))
    messages = {"halo": 2, "ring": 3 * NODE - 2}[kind]
    moved = config.num_layers * (messages * NVLINK.alpha + sent / NVLINK.beta)
    weights = 2 * gather_seconds(BF16 * count_parameters(config), gpus)
    return Modelled(compute_seconds(config, LONG_ROW / NODE, LONG_ROW), moved + weights)


def model_decoders() -> dict[str, Any]:
    """All rows."""
    return {
        "kind": "modelled",
        "state_bytes": "16 bytes per parameter, ZeRO-2: bfloat16 weights whole, gradients, float32 weights and moments split",
        "rows": list(rows()),
    }


def rows() -> Iterator[dict[str, Any]]:
    for name, (preset, row) in DECODERS.items():
        config = PRESETS[preset]
        for gpus in GPUS:
            for scaling, tokens in (("weak", GPU_TOKENS), ("strong", STEP_TOKENS / gpus)):
                yield shown(name, "data", scaling, gpus, tokens, data_parallel(config, gpus, tokens, row), config)
                yield shown(name, "tensor 8 + data", scaling, gpus, tokens, tensor_parallel(config, gpus, tokens, row), config)
            if config.blocksparse is None:
                for kind in ("halo", "ring"):
                    found = context_parallel(config, gpus, kind)
                    yield shown(name, f"context 8 by {kind} + data, window at 128k", "weak", gpus, LONG_ROW / NODE, found, config)


def shown(name: str, layout: str, scaling: str, gpus: int, tokens: float, found: Modelled, config: DecoderConfig) -> dict[str, Any]:
    """A row of the results."""
    seconds = found.compute + found.communication
    here = count_parameters(config) / (NODE if layout.startswith("tensor") else 1)
    sharers = gpus // NODE if layout.startswith("tensor") else gpus
    return {
        "kind": "modelled",
        "decoder": name,
        "layout": layout,
        "scaling": scaling,
        "gpus": gpus,
        "tokens_per_gpu": tokens,
        "compute_s": round(found.compute, 5),
        "communication_s": round(found.communication, 5),
        "efficiency": round(found.efficiency, 4),
        "tokens_per_s": round(gpus * tokens / seconds),
        "state_bytes_per_gpu": round(here * (BF16 + 14 / sharers)),
    }
