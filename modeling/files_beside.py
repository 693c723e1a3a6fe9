"""What lies in a model folder beside configuration and weights, a tokenizer above all: copied file by file."""

import os
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from modeling.errors import ModelError

# The folder of a checkpoint in which the tokenizer and licence files lie that came with its weights.
BESIDE = "beside"
# What a saved decoder brings itself, or must not stand beside it.
WRITTEN = r"config\.json|generation_config\.json|model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors"
# Configuration, hidden files, files that hold the same weights for other programs, and an optimizer's: gigabytes that a copy of the
# tokenizer does not need.
LEFT_BEHIND = ("config.json", "generation_config.json", "*.safetensors", ".*")
LEFT_BEHIND += ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.ggml", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.index.json")


def tokenizer_above(folder: Path) -> Path | None:
    """The folder of a checkpoint's tokenizer.json: itself, its `beside/`, or `tokenizer/` of the run that it lies in."""
    places = (folder, folder / BESIDE, *(parent / "tokenizer" for parent in folder.resolve().parents))
    return next((place for place in places if (place / "tokenizer.json").is_file()), None)


def keep_files(source: Path, target: Path) -> None:
    """Copies what stands in a folder that is about to be replaced and what the decoder's own files do not replace."""
    copy_files(source, target, lambda path: path.parent == source and re.fullmatch(WRITTEN, path.name) is not None)


def copy_other_files(source: Path, target: Path) -> None:
    """Copies what in a model folder is neither configuration, nor weights of any format, nor hidden: the tokenizer's files above all."""
    copy_files(source, target, lambda path: any(fnmatch(path.name, pattern) for pattern in LEFT_BEHIND))


def copy_files(source: Path, target: Path, left_out: Callable[[Path], bool], above: tuple[str, ...] = ()) -> None:
    """Copies the files of a folder and of those inside it; links are followed.

    The first that cannot be copied is the error: shutil's `copytree` gathers them all into one without a number that says what failed.
    """
    above = (*above, os.path.realpath(source))
    for path in sorted(source.iterdir()):
        if left_out(path):
            continue
        place = target / path.name
        if path.is_dir():
            if os.path.realpath(path) in above:
                raise ModelError(f"{path}: a link to a folder that it lies in, which has no end; remove it")
            place.mkdir(exist_ok=True)
            copy_files(path, place, left_out, above)
            place.chmod(path.stat().st_mode & 0o777 | 0o700)  # never so that the copy could not be removed
        elif path.is_file():
            shutil.copy2(path, place)
        elif path.is_symlink():
            raise ModelError(f"{path}: a link to {os.readlink(path)}, which is not there; remove it, or put that there")
        else:
            raise ModelError(f"{path}: neither a file nor a folder, but a pipe, a socket or a device; it cannot be copied")
