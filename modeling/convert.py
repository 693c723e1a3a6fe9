"""Hugging Face folder to checkpoint, and back, tensor by tensor."""

from pathlib import Path

import torch

from modeling.checkpoint import MANIFEST, Checkpoint, check_metadata, finish_checkpoint
from modeling.checkpoint_parts import FILE_BYTES, PartWriter
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.files_beside import BESIDE, copy_other_files, tokenizer_above
from modeling.hf_weights import (
    check_dtypes,
    dtype_named,
    read_hf_config,
    rounded,
    stored_dtypes,
    stream_hf_tensors,
    write_hf_folder,
)
from modeling.model_checkpoint import PREFIX, checkpoint_config, checkpoint_dtypes, decoder_metadata, stream_checkpoint_tensors
from modeling.whole_files import folder_place, mend_folder, whole_folder


def convert_model(
    source: str | Path, target: str | Path, shard_bytes: int | None = None, dtype: str | None = None
) -> tuple[str, DecoderConfig]:
    """Converts `source` into the new folder `target`; the direction is told by what `source` is. Returns what was written, and the sizes.

    Both folders are local. `target` must not exist, or be empty; it appears whole or not at all. About one file is held in memory. The
    weights are rounded to `dtype`, by its name (None: they stay as they are and must all be of one).
    """
    kept = dtype_named(dtype)
    source, target = Path(source), Path(target)
    kind = kind_of(source)
    if source.resolve() in target.resolve().parents:
        raise ModelError(f"{target}: lies inside {source}, which would be copied into itself; give a folder outside it")
    mend_folder(folder_place(target))  # first: what a killed writer had taken away is not to be taken for a free name
    if target.is_dir() and any(target.iterdir()):
        raise ModelError(f"{target}: the folder is not empty; an empty or new one is needed")
    if kind == "checkpoint":
        return "Hugging Face folder", to_hf(source, target, shard_bytes, kept)
    return "checkpoint", to_checkpoint(source, target, shard_bytes, kept)


def kind_of(source: Path) -> str:
    """`checkpoint` where a manifest lies in the folder, `hf` where a config.json does."""
    if not source.is_dir():
        raise ModelError(f"{source}: no such folder; a Hugging Face folder (phi3 or phi3small) or a checkpoint is needed")
    if (source / MANIFEST).exists() and not (source / "config.json").exists():
        return "checkpoint"
    if (source / "config.json").exists():
        return "hf"
    raise ModelError(f"{source}: neither config.json (a Hugging Face folder) nor {MANIFEST} (a checkpoint) is there")


def to_checkpoint(source: Path, target: Path, file_bytes: int | None = None, dtype: torch.dtype | None = None) -> DecoderConfig:
    """A Hugging Face folder as a checkpoint."""
    config = read_hf_config(source)
    check_dtypes(source, stored_dtypes(source, config), dtype)
    metadata = decoder_metadata(config)
    check_metadata(target, metadata)
    with whole_folder(target) as temporary:
        with PartWriter(temporary, file_bytes=file_bytes or FILE_BYTES) as writer:
            for name, tensor in stream_hf_tensors(source, config):
                writer.add(PREFIX + name, rounded(source, name, tensor, dtype))
        (temporary / BESIDE).mkdir()
        copy_other_files(source, temporary / BESIDE)
        finish_checkpoint(temporary, 1, metadata)
    return config


def to_hf(source: Path, target: Path, shard_bytes: int | None = None, dtype: torch.dtype | None = None) -> DecoderConfig:
    """A checkpoint's decoder as a Hugging Face folder, with its tokenizer; what else the checkpoint holds stays behind."""
    checkpoint = Checkpoint(source)
    config = checkpoint_config(checkpoint)
    check_dtypes(source, checkpoint_dtypes(checkpoint), dtype)
    checkpoint.verify()
    options = {} if shard_bytes is None else {"shard_bytes": shard_bytes}
    tensors = ((name, rounded(source, name, tensor, dtype)) for name, tensor in stream_checkpoint_tensors(checkpoint, config))
    write_hf_folder(target, config, tensors, tokenizer=tokenizer_folder(source), **options)
    return config


def tokenizer_folder(source: Path) -> Path | None:
    """What goes along with a checkpoint's decoder: what came with its weights, or the tokenizer of the run that trained it."""
    if (source / BESIDE).is_dir():
        return source / BESIDE
    found = tokenizer_above(source)
    return None if found == source else found  # a checkpoint's own folder has its parts in it
