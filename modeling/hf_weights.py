"""Decoders in Hugging Face's layouts of Phi3 and phi-3-small: configuration and safetensors, in one file or in shards with an index."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling.checkpoint_parts import DTYPES as STORED_DTYPES
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.files_beside import copy_other_files, keep_files
from modeling.hf_config import config_from_hf, config_to_hf, generation_to_hf
from modeling.hf_layout import Layout, check_layout, eos_ids_from_hf, hf_name, layout_of
from modeling.whole_files import read_json, usual_mode, whole_folder, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What else can be rounded to one of them: integers and float8 are a quantised model's, whose scales lie elsewhere.
CONVERTIBLE = {*DTYPES, "float64"}


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
            config = config_from_hf({**raw, "eos_token_id": None}, str(root / "config.json"))
            try:
                return dataclasses.replace(config, eos_ids=eos_ids_from_hf(also["eos_token_id"]))
            except ModelError as error:
                raise ModelError(f"{generation}: {error}") from error
    return config_from_hf(raw, str(root / "config.json"))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: the single one, as transformers prefers it, else those its index names."""
    index = folder / INDEX
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not index.exists():
        raise ModelError(f"{folder}: no weights; {SINGLE} or {INDEX} is needed")
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
        with open_weights(path) as weights:
            for theirs in weights.keys():  # noqa: SIM118 (not a mapping)
                if theirs not in shapes:
                    if theirs == "lm_head.weight" and config.tied:  # a copy of the embedding that some writers keep
                        continue
                    raise ModelError(f"{path}: {theirs} is no tensor of a {config.num_layers}-layer {layout} decoder")
                if theirs in seen:
                    raise ModelError(f"{path}: {theirs} is in another file of the folder too; one of them must hold it")
                name, shape = shapes[theirs]
                found = tuple(weights.get_slice(theirs).get_shape())
                if found != shape:
                    raise ModelError(f"{path}: {theirs} must have the shape {shape} by config.json, got {found}")
                seen.add(theirs)
                yield name, weights.get_tensor(theirs)
    missing = [name for name in shapes if name not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{root}: the weights lack {missing[0]}{more}")


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """One safetensors file, open; an error of one line where it is none."""
    try:
        if not path.is_file():
            raise ModelError(f"{path}: a file of weights is needed, this is something else")
        with open(path, "rb"):  # safetensors says of what it may not read that it is not there
            pass
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with safe_open(path, framework="pt") as weights:
            yield weights
    except SafetensorError as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})") from error


def stored_dtypes(folder: str | Path, config: DecoderConfig) -> set[str]:
    """The dtypes of the decoder's tensors in a model folder, from the headers alone."""
    layout = layout_of(config)
    wanted = {hf_name(name, layout) for name in parameter_shapes(config)}
    found: set[str] = set()
    for path in weight_files(Path(folder)):
        with open_weights(path) as weights:
            found |= {weights.get_slice(name).get_dtype() for name in wanted & set(weights.keys())}
    return {dtype_name(STORED_DTYPES[one]) if one in STORED_DTYPES else one for one in found}


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def check_dtypes(where: str | Path, found: Iterable[str], dtype: torch.dtype | None = None) -> None:
    """Refuses weights that are no floating-point numbers, and those of more than one dtype where no `dtype` is given to round them to."""
    kinds = sorted(found)
    if not set(kinds) <= CONVERTIBLE:
        raise ModelError(f"{where}: the weights must be of {', '.join(sorted(CONVERTIBLE))}, got {', '.join(kinds)}")
    if dtype is None and kinds and (len(kinds) > 1 or kinds[0] not in DTYPES):
        raise ModelError(
            f"{where}: the weights must be all {' or all '.join(DTYPES)}, got {', '.join(kinds)}; give a dtype, as `phial convert "
            "SRC DST --dtype bfloat16` does"
        )


def dtype_named(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name; None and a dtype stay as they are."""
    if isinstance(dtype, torch.dtype) or dtype is None:
        return dtype
    if dtype not in DTYPES:
        raise ModelError(f"no dtype {dtype!r} for weights; there is {', '.join(DTYPES)}")
    return DTYPES[dtype]


def rounded(where: str | Path, name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor in `dtype` (None: as it is); where that rounds, it must be numbers before and after: 70,000 is infinite in float16."""
    if dtype is None or dtype == tensor.dtype:
        return tensor
    result = tensor.to(dtype)
    if not is_finite(result):
        what = f"holds numbers that are infinite in {dtype_name(dtype)}" if is_finite(tensor) else "holds numbers that are infinite or none"
        raise ModelError(f"{where}: {name} {what}, and is not rounded; bfloat16 and float32 reach to 3e38")
    return result


def is_finite(tensor: Tensor) -> bool:
    """Neither infinities nor NaN, told without a second tensor."""
    return tensor.numel() == 0 or all(bool(one.isfinite()) for one in tensor.aminmax())


def load_decoder(folder: str | Path, dtype: torch.dtype | str | None = None, attention: str = "sdpa") -> Decoder:
    """The decoder of a Hugging Face folder (phi3 or phi3small), on the CPU, in `dtype` (None: as it was saved), in eval mode."""
    dtype = dtype_named(dtype)
    config = read_hf_config(folder)
    check_dtypes(folder, stored_dtypes(folder, config), dtype)
    # A copy of its own where nothing is rounded: what was read lies in the file still.
    given = stream_hf_tensors(folder, config)
    tensors = {name: rounded(folder, name, one, dtype) if dtype not in (None, one.dtype) else one.clone() for name, one in given}
    return build_decoder(config, tensors, attention, str(folder))


def build_decoder(config: DecoderConfig, tensors: dict[str, Tensor], attention: str = "sdpa", where: str = "weights") -> Decoder:
    """A decoder whose parameters are the given tensors, by our names. It is in eval mode: dropout acts after `train()` only."""
    check_dtypes(where, {dtype_name(tensor.dtype) for tensor in tensors.values()})
    with torch.device("meta"):
        decoder = Decoder(config, attention=attention)
    decoder.load_state_dict(tensors, assign=True)
    return decoder.requires_grad_(True).eval()


def save_decoder(decoder: Decoder, folder: str | Path, shard_bytes: int = SHARD_BYTES, tokenizer: str | Path | None = None) -> None:
    """Writes the decoder as a Hugging Face folder that appears whole, with the files of the folder `tokenizer` beside it (None: no others).

    Weights above `shard_bytes` are split into shards with an index. Other files that stand in `folder` already (a tokenizer, an
    adapter) are kept.
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
    if tokenizer is not None and not Path(tokenizer).is_dir():
        raise ModelError(f"{tokenizer}: no such folder; the files of a tokenizer are to be copied from it")
    with whole_folder(folder) as temporary:
        if Path(folder).is_dir():
            keep_files(Path(folder), temporary)
        if tokenizer is not None:
            copy_other_files(Path(tokenizer), temporary)
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
        with usual_mode(path):
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
