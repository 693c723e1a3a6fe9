"""A decoder in torch as a conversation partner: a Hugging Face folder or a checkpoint, in the weights' own dtype."""

# T tokens, V vocabulary.

from pathlib import Path

import numpy as np
import torch

from data_pipeline.errors import InputError
from data_pipeline.tokens.chat import stop_ids
from data_pipeline.tokens.tokenizer import load_tokenizer
from export.session import Session, load_package
from modeling import load_decoder
from modeling.checkpoint import MANIFEST
from modeling.decoder import Decoder
from modeling.decoding import Decoding
from modeling.files_beside import tokenizer_above
from modeling.model_checkpoint import load_decoder_checkpoint

SMALLEST_CAPACITY = 256


class DecoderRunner:
    """One sequence with a cache that grows; a prompt that begins as the last one did continues from there."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder.eval()
        self.context = decoder.config.max_positions
        self.vocab_size = decoder.config.vocab_size
        self.decoding = Decoding(self.decoder, 1, min(SMALLEST_CAPACITY, self.context))

    def reserve(self, tokens: int) -> None:
        """Room for so many positions; grows by doubling and keeps what is cached."""
        capacity = self.decoding.cache.capacity
        if tokens <= capacity:
            return
        while capacity < tokens:
            capacity *= 2
        self.decoding.cache = self.decoding.cache.take(torch.zeros(1, dtype=torch.long), max(tokens, min(capacity, self.context)))

    def prefill(self, ids: list[int]) -> np.ndarray:
        """Reads a whole prompt; the part that the cache begins with is skipped. Logits after its last token, float32 (V,)."""
        same = 0
        for ours, theirs in zip(self.decoding.ids_BT[0].tolist(), ids[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        self.decoding.rewind(same)
        return self.feed(ids[same:])

    def feed(self, ids: list[int]) -> np.ndarray:
        """Appends tokens; the logits after the last of them, float32 (V,)."""
        self.reserve(self.decoding.length + len(ids))
        return self.decoding.feed(torch.tensor([ids]))[0].float().cpu().numpy()


def open_session(folder: str | Path, threads: int = 0) -> Session:
    """Whatever can chat: a package, a Hugging Face folder, or a checkpoint with its tokenizer in or above it; told by the files there."""
    root = Path(folder)
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; a package, a Hugging Face folder or a checkpoint is needed")
    if (root / "model.onnx").exists():
        return load_package(root, threads)
    if threads:
        torch.set_num_threads(threads)
    if (root / "config.json").exists():
        load, place = load_decoder, root
    elif (root / MANIFEST).exists():
        load, place = load_decoder_checkpoint, tokenizer_above(root)
    else:
        kinds = f"model.onnx (a package), config.json (a Hugging Face folder) nor {MANIFEST} (a checkpoint)"
        raise InputError(f"{root}: neither {kinds} is there")
    if place is None:
        raise InputError(f"{root}: a checkpoint without a tokenizer, and none in a tokenizer/ folder above it")
    tokenizer = load_tokenizer(place)
    decoder = load(root)  # last: what is missing beside the weights is told before gigabytes are read
    return Session(root, tokenizer, DecoderRunner(decoder), decoder.config.eos_ids or stop_ids(tokenizer))
