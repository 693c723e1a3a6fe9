"""The weights file beside the graph: tensors appended one by one at 4 KiB boundaries, equal bytes stored once."""

import hashlib
from pathlib import Path
from typing import IO

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which onnx_ir's data types look up)
import numpy as np
import onnx_ir as ir

ALIGNMENT = 4096
# Smaller tensors stay inside the graph: padding each to a page would cost more than it saves.
SMALLEST = 1024


class DataFile:
    """Writes `name` into `folder` and hands out the initializers that point into it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.stream: IO[bytes] = open(folder / name, "wb")  # noqa: SIM115  (closed by the package writer)
        self.places: dict[bytes, int] = {}

    def add(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer with these values; large ones go to the file, and one whose bytes are there already points at them."""
        array = np.ascontiguousarray(array)
        tensor: ir.TensorProtocol
        if array.nbytes < SMALLEST:
            tensor = ir.tensor(array, name=name)
        else:
            digest = hashlib.sha256(array.data).digest()
            if digest not in self.places:
                self.stream.write(b"\0" * (-self.stream.tell() % ALIGNMENT))
                self.places[digest] = self.stream.tell()
                self.stream.write(array.data)
            tensor = ir.ExternalTensor(
                self.name,
                self.places[digest],
                array.nbytes,
                ir.DataType.from_numpy(array.dtype),
                shape=ir.Shape(array.shape),
                name=name,
                base_dir=self.folder,
            )
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        return value

    def close(self) -> None:
        self.stream.close()
