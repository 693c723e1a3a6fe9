"""One interface over every kind of model that can be scored, and the function that finds out which kind a folder is."""

# B rows of a batch, T tokens, V vocabulary, R rows that continue a batch, W wanted positions.

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, sha256_of
from eval.generation import Generation, generate_greedy
from eval.scoring import Request, Score, score_requests
from eval.text import TextSide


@dataclass(frozen=True)
class Identity:
    """Where a model came from and what it is; `fingerprint` changes with any weight, setting or tokenizer entry."""

    path: str
    kind: str
    fingerprint: str


class Model(ABC):
    """What the harness needs of a model. A backend supplies three forward passes; scoring and greedy decoding are shared.

    `context` is the longest input in tokens. Logits are float32 tensors on the CPU.
    """

    def __init__(self, identity: Identity, text: TextSide, context: int, batch_tokens: int = 8192) -> None:
        self.identity, self.text, self.context, self.batch_tokens = identity, text, context, batch_tokens

    @abstractmethod
    def prefill(self, ids_BT: Tensor, room: int) -> tuple[Any, Tensor]:
        """Reads rows of equal length; returns a state with room for `room` more tokens per row, and the last position's logits (B, V)."""

    @abstractmethod
    def extend(self, state: Any, rows_R: Tensor, ids_RT: Tensor, wanted_RT: Tensor) -> Tensor:
        """Reads right-padded continuations of the state's rows `rows_R`, leaving the state as it was; logits (W, V) where `wanted_RT`."""

    @abstractmethod
    def step(self, state: Any, ids_B: Tensor) -> Tensor:
        """Adds one token to every row of the state; returns the logits (B, V) of that position."""

    @abstractmethod
    def whole(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of every position in one pass."""

    def alike(self, length: int, longest: int) -> bool:
        """Whether `length` tokens have the same keys as the beginning of a text of `longest` (longrope changes them with the length)."""
        return True

    def score(self, requests: Sequence[Request]) -> list[Score]:
        """Log-probabilities of continuations after their contexts, in the order given; contexts are read once however often they come."""
        return score_requests(self, requests)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Greedy answers to prompts of token ids; they end at the tokenizer's end tokens or at a stop string."""
        return generate_greedy(self, prompts, max_new_tokens, stop)


def open_model(path: str | Path, tokenizer: str | Path | None = None) -> Model:
    """The model of a Hugging Face Phi3 folder, of our checkpoint folder, or of an exported package.

    `tokenizer`: the folder of tokenizer.json where the model's folder has none. Raises InputError where the folder is none of the three.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{path}: {'a file' if folder.exists() else 'no such folder'}; a model is a folder: {KINDS}")
    for marker, opener in OPENERS:
        if marker(folder):
            return opener(folder, tokenizer)
    found = ", ".join(sorted(one.name for one in folder.iterdir())[:6]) or "nothing"
    raise InputError(f"{path}: not a model; expected {KINDS}; found {found}")


def open_hugging_face(folder: Path, tokenizer: str | Path | None) -> Model:
    from eval.decoder_model import DecoderModel
    from modeling import load_decoder

    text = TextSide.open(Path(tokenizer) if tokenizer else folder)
    weights = sorted(folder.glob("*.safetensors"))
    identity = Identity(str(folder), "Hugging Face folder", fingerprint_of([folder / "config.json", *weights, *text.files]))
    return DecoderModel(identity, text, load_decoder(folder))


def open_checkpoint(folder: Path, tokenizer: str | Path | None) -> Model:
    from eval.decoder_model import DecoderModel
    from modeling.model_checkpoint import load_decoder_checkpoint

    text = TextSide.open(Path(tokenizer) if tokenizer else tokenizer_of_checkpoint(folder))
    # The manifest holds the SHA-256 of every file.
    identity = Identity(str(folder), "checkpoint", fingerprint_of([folder / "manifest.json", *text.files]))
    return DecoderModel(identity, text, load_decoder_checkpoint(folder))


def open_package(folder: Path, tokenizer: str | Path | None) -> Model:
    from eval.package_model import PackageModel

    text = TextSide.open(Path(tokenizer) if tokenizer else folder)
    identity = Identity(str(folder), "package", fingerprint_of([folder / "manifest.json", *text.files]))
    return PackageModel.open(identity, text, folder)


def tokenizer_of_checkpoint(folder: Path) -> Path:
    """Where a checkpoint's tokenizer lies; none is an error that says how to name one."""
    from export.decoder_runner import tokenizer_above

    place = tokenizer_above(folder)
    if place is None:
        raise InputError(f"{folder}: a checkpoint without a tokenizer, and none in a tokenizer/ folder above it; name one with --tokenizer")
    return place


def is_checkpoint(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    return manifest.is_file() and "tensors" in _object(manifest)


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    return value if isinstance(value, dict) else {}


KINDS = "config.json with *.safetensors (Hugging Face), a checkpoint's manifest.json, or model.onnx with manifest.json (a package)"
OPENERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, str | Path | None], Model]], ...] = (
    (lambda folder: (folder / "model.onnx").is_file() and (folder / "manifest.json").is_file(), open_package),
    (is_checkpoint, open_checkpoint),
    (lambda folder: (folder / "config.json").is_file() and any(folder.glob("*.safetensors")), open_hugging_face),
)


def fingerprint_of(files: Sequence[Path]) -> str:
    """SHA-256 over the files' names and contents."""
    listed = [(path.name, sha256_of(path)) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def as_float(logits: Tensor) -> Tensor:
    """float32 on the CPU, whatever the weights' dtype and device."""
    return logits.to(device="cpu", dtype=torch.float32)
