"""What the graph can hold of a Phi3 folder's `config.json`, and the rotary tables it needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from modeling.config import DecoderConfig
from modeling.hf_config import config_from_hf


def read_architecture(folder: Path, context: int = 0) -> tuple[DecoderConfig, int]:
    """The decoder of a Hugging Face Phi3 folder and how many positions its package serves.

    `context` 0 takes all that one set of rotary tables serves; more than that is refused. longrope changes to its long factors behind the
    original context, with every key rotated anew; a package holds the short set and serves the original context.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a Hugging Face Phi3 folder is needed")
    where = folder / "config.json"
    config = config_from_hf(read_json(where), str(where))
    if config.norm != "rms":
        raise InputError(
            f"{where}: the 4-bit package has no phi-3-small yet (LayerNorm, GEGLU, blocksparse attention); a phi3 folder is needed"
        )
    generation = folder / "generation_config.json"
    if generation.exists():
        ending = read_json(generation).get("eos_token_id")
        if ending is not None:
            config = replace(config, eos_ids=tuple(ending) if isinstance(ending, list) else (ending,))
    if config.rotary_dim % 16:
        # onnxruntime's GroupQueryAttention asks for whole groups of eight rotary pairs.
        raise InputError(f"{where}: rotated features per head must be a multiple of 16 for export, got {config.rotary_dim}")
    longest = config.original_positions
    if context > longest:
        raise InputError(f"[export] context = {context}: {folder} serves at most {longest} positions")
    return config, context or longest


def rotary_tables(config: DecoderConfig, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, float32 (context, rotary_dim / 2): angle = position / (factor * theta ** (2 i / rotary_dim))."""
    exponents = np.arange(0, config.rotary_dim, 2, dtype=np.float32) / np.float32(config.rotary_dim)
    factors = np.ones(config.rotary_dim // 2) if config.rope_scaling is None else config.rope_scaling.short_factors
    frequencies = (1.0 / (np.asarray(factors, np.float32) * np.float32(config.rope_theta) ** exponents)).astype(np.float32)
    angles = np.arange(context, dtype=np.float32)[:, None] * frequencies[None, :]
    scale = np.float32(config.rope_attention_factor)
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)
