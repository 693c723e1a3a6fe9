"""Decoders in Hugging Face's layouts of Phi3 and phi-3-small: configuration and safetensors, in one file or in shards with an index."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.hf_config import config_from_hf, config_to_hf, generation_to_hf
from modeling.hf_layout import Layout, check_layout, hf_name, layout_of
from modeling.whole_files import read_json, whole_folder, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of the decoder by our name, in order; a tied head is not one."""
    with torch.device("meta"):
        return {name: tuple(parameter.shape) for name, parameter in Decoder(config).named_parameters()}


def read_hf_config(folder: str | Path) -> DecoderConfig:
    """The configuration of a model folder; generation_config.json's end-of-text ids win over config.json's, as in generation."""
    root = Path(folder)
    if not root.is_dir():
        raise ModelError(f"{root}: no such model folder")
    raw = read_json(root / "config.json")
    generation = root / "generation_config.json"
    if isinstance(raw, dict) and generation.exists():
        also = read_json(generation)
        if isinstance(also, dict) and also.get("eos_token_id") is not None:
            raw = {**raw, "eos_token_id": also["eos_token_id"]}
    return config_from_hf(raw, str(root / "config.json"))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those its index names, else the single one."""
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).exists():
            raise ModelError(f"{folder}: no weights; {SINGLE} or {INDEX} is needed")
        return [folder / SINGLE]
    table = read_json(index)
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index}: a weight_map of tensor names to file names is needed")
    files = sorted({folder / name for name in names.values()})
    for path in files:
        if path.parent != folder or not path.exists():
            raise ModelError(f"{index}: names {path.name}, which is not in the folder")
    return files


def stream_hf_tensors(folder: str | Path, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of a model folder under our name, one at a time; missing, unknown and misshapen tensors are refused by name."""
    root = Path(folder)
    layout = layout_of(config)
    shapes = {hf_name(name, layout): (name, shape) for name, shape in parameter_shapes(config).items()}
    seen: set[str] = set()
    for path in weight_files(root):
        try:
            with safe_open(path, framework="pt") as weights:
                for theirs in weights.keys():  # noqa: SIM118 (not a mapping)
                    if theirs not in shapes:
                        if theirs == "lm_head.weight" and config.tied:  # a copy of the embedding that some writers keep
                            continue
                        raise ModelError(f"{path}: {theirs} is no tensor of a {config.num_layers}-layer {layout} decoder")
                    name, shape = shapes[theirs]
                    found = tuple(weights.get_slice(theirs).get_shape())
                    if found != shape:
                        raise ModelError(f"{path}: {theirs} must have the shape {shape} by config.json, got {found}")
                    seen.add(theirs)
                    yield name, weights.get_tensor(theirs)
        except SafetensorError as error:
            raise ModelError(f"{path}: not a whole safetensors file ({error})") from error
    missing = [name for name in shapes if name not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{root}: the weights lack {missing[0]}{more}")


def load_decoder(folder: str | Path, dtype: torch.dtype | None = None, attention: str = "sdpa") -> Decoder:
    """The decoder of a Hugging Face folder (phi3 or phi3small), on the CPU, in `dtype` (None: as it was saved), in eval mode."""
    config = read_hf_config(folder)
    tensors = {name: tensor.to(dtype or tensor.dtype, copy=True) for name, tensor in stream_hf_tensors(folder, config)}
    return build_decoder(config, tensors, attention, str(folder))


def build_decoder(config: DecoderConfig, tensors: dict[str, Tensor], attention: str = "sdpa", where: str = "weights") -> Decoder:
    """A decoder whose parameters are the given tensors, by our names. It is in eval mode: dropout acts after `train()` only."""
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    if len(kinds) != 1 or kinds[0] not in DTYPES:
        raise ModelError(f"{where}: the weights must be all {' or all '.join(DTYPES)}, got {', '.join(kinds)}; give a dtype")
    with torch.device("meta"):
        decoder = Decoder(config, attention=attention)
    decoder.load_state_dict(tensors, assign=True)
    return decoder.requires_grad_(True).eval()


def save_decoder(decoder: Decoder, folder: str | Path, shard_bytes: int = SHARD_BYTES, tokenizer: str | Path | None = None) -> None:
    """Writes the decoder as a Hugging Face folder that appears whole, with the files of the folder `tokenizer` beside it.

    Weights above `shard_bytes` are split into shards with an index. Other files that stand in `folder` already (a tokenizer) are kept.
    """
    tensors = ((name, parameter.detach()) for name, parameter in decoder.named_parameters())
    write_hf_folder(folder, decoder.config, tensors, shard_bytes, tokenizer)


def write_hf_folder(
    folder: str | Path,
    config: DecoderConfig,
    tensors: Iterable[tuple[str, Tensor]],
    shard_bytes: int = SHARD_BYTES,
    tokenizer: str | Path | None = None,
) -> None:
    """`save_decoder` for parameters that arrive one at a time under our names; about one shard is held in memory."""
    layout = check_layout(config)
    with whole_folder(folder) as temporary:
        for source in (Path(folder), None if tokenizer is None else Path(tokenizer)):
            if source is not None and source.is_dir():
                copy_other_files(source, temporary)
        dtype = write_shards(temporary, tensors, shard_bytes, layout)
        write_json(temporary / "config.json", config_to_hf(config, dtype))
        write_json(temporary / "generation_config.json", generation_to_hf(config))


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int, layout: Layout) -> str:
    """The weights as numbered safetensors files, or one; returns the dtype's name."""
    shards: list[tuple[list[str], int]] = []
    held: dict[str, Tensor] = {}
    dtypes: set[str] = set()

    def flush() -> None:
        path = folder / f"{len(shards):05d}.safetensors"
        save_file(held, path, metadata={"format": "pt"})
        shards.append((list(held), sum(tensor.nbytes for tensor in held.values())))
        held.clear()

    for name, tensor in tensors:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > shard_bytes:
            flush()
        held[hf_name(name, layout)] = tensor.cpu().contiguous()
        dtypes.add(str(tensor.dtype).removeprefix("torch."))
    flush()
    if len(dtypes) != 1 or not dtypes <= DTYPES.keys():
        raise ModelError(f"a model folder holds weights of one dtype of {', '.join(DTYPES)}; got {', '.join(sorted(dtypes))}")
    if len(shards) == 1:
        (folder / "00000.safetensors").rename(folder / SINGLE)
    else:
        write_index(folder, shards)
    return dtypes.pop()


def write_index(folder: Path, shards: list[tuple[list[str], int]]) -> None:
    """Gives the shards the names that readers expect, and says which tensor lies in which."""
    places: dict[str, Any] = {}
    for number, (names, _) in enumerate(shards):
        final = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"{number:05d}.safetensors").rename(folder / final)
        places.update(dict.fromkeys(names, final))
    write_json(folder / INDEX, {"metadata": {"total_size": sum(size for _, size in shards)}, "weight_map": places})


def copy_other_files(source: Path, target: Path) -> None:
    """Everything of a model folder that is neither weights nor configuration: the tokenizer's files above all."""
    for path in source.iterdir():
        if path.name in ("config.json", "generation_config.json", INDEX) or path.suffix == ".safetensors":
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target / path.name)
