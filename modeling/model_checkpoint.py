"""A decoder inside a checkpoint: its parameters under `weight/`, its configuration in the metadata under "model".

What else a checkpoint holds (an optimizer's moments, a step) is its writer's business and lies under other names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeling.checkpoint import Checkpoint
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.hf_weights import build_decoder, check_dtypes, dtype_named, parameter_shapes, rounded

PREFIX = "weight/"
METADATA = "model"


def decoder_metadata(config: DecoderConfig) -> dict[str, Any]:
    """What a checkpoint's metadata says of the decoder; join it with your own."""
    return {METADATA: config.to_dict()}


def checkpoint_config(checkpoint: Checkpoint) -> DecoderConfig:
    """The configuration of the decoder that a checkpoint holds."""
    if METADATA not in checkpoint.metadata:
        raise ModelError(f"{checkpoint.folder}: the metadata has no {METADATA!r}; this checkpoint holds no decoder")
    try:
        return DecoderConfig.from_dict(checkpoint.metadata[METADATA])
    except ModelError as error:
        raise ModelError(f"{checkpoint.folder}: {error}") from error


def checkpoint_dtypes(checkpoint: Checkpoint) -> set[str]:
    """The dtypes of the decoder's parameters, by the manifest."""
    return {entry["dtype"] for name, entry in checkpoint.tensors.items() if name.startswith(PREFIX)}


def stream_checkpoint_tensors(checkpoint: Checkpoint, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
    """The decoder's parameters by our names, one at a time; missing, unknown and misshapen ones are refused by name."""
    shapes = parameter_shapes(config)
    for stored in checkpoint.names:
        if stored.startswith(PREFIX) and stored.removeprefix(PREFIX) not in shapes:
            raise ModelError(f"{checkpoint.folder}: {stored} is no parameter of a {config.num_layers}-layer decoder")
    for name, shape in shapes.items():
        found = checkpoint.shape(PREFIX + name)
        if found != shape:
            raise ModelError(f"{checkpoint.folder}: {PREFIX}{name} must have the shape {shape} by its configuration, got {found}")
        yield name, checkpoint.read(PREFIX + name)


def load_decoder_checkpoint(
    folder: str | Path, dtype: torch.dtype | str | None = None, attention: str = "sdpa", verify: bool = True
) -> Decoder:
    """The decoder of a checkpoint, on the CPU, in `dtype` (None: as it was saved)."""
    dtype = dtype_named(dtype)
    checkpoint = Checkpoint(folder)
    config = checkpoint_config(checkpoint)
    check_dtypes(folder, checkpoint_dtypes(checkpoint), dtype)
    if verify:
        checkpoint.verify()
    tensors = {name: rounded(folder, name, tensor, dtype) for name, tensor in stream_checkpoint_tensors(checkpoint, config)}
    return build_decoder(config, tensors, attention, str(folder))
