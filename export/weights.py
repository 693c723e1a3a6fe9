"""Reading a Hugging Face folder tensor by tensor: safetensors mapped into memory, so that only the tensor in hand is ever copied."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json

DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


class WeightFolder:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, tuple[Path, dict[str, Any], int]] = {}
        index = folder / "model.safetensors.index.json"
        files = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
        for file in files:
            self.read_header(folder / file)

    def read_header(self, path: Path) -> None:
        """safetensors: 8 bytes of little-endian header length, the header as JSON, then the data."""
        try:
            with open(path, "rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                if not 0 < length <= path.stat().st_size - 8:
                    raise InputError(f"{path}: not a safetensors file, or cut short")
                header = json.loads(stream.read(length))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; a folder with Hugging Face weights is needed") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a safetensors file ({error})") from error
        size = path.stat().st_size - 8 - length
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["data_offsets"][1] > size:
                raise InputError(f"{path}: cut short; {name} ends at byte {entry['data_offsets'][1]} of {size}")
            self.entries[name] = (path, entry, 8 + length)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor as float32; its shape must be the one the configuration promises, its values finite."""
        if name not in self.entries:
            raise InputError(f"{self.folder}: no tensor {name!r}; the weights do not belong to the config.json beside them")
        path, entry, start = self.entries[name]
        if tuple(entry["shape"]) != shape:
            raise InputError(f"{path}: {name} has shape {tuple(entry['shape'])}, config.json asks for {shape}")
        if entry["dtype"] not in DTYPES:
            raise InputError(f"{path}: {name} is {entry['dtype']}; allowed are {', '.join(DTYPES)}")
        first, last = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=start + first, shape=(last - first,))
        values = np.array(mapped.view(dtype).reshape(shape), dtype=np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {name} holds values that are not finite; such a model cannot be quantized")
        return values
