"""A model in use: text in, text out."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from data_pipeline.tokens.chat import encode_chat
from data_pipeline.tokens.tokenizer import load_tokenizer
from export.package import open_package
from export.runner import Runner
from export.sampling import Sampling, pick, text_pieces, until_stop

Prompt = str | Sequence[dict[str, str]]


class SequenceRunner(Protocol):
    """What runs one sequence with a cache: a package's graph, or a decoder."""

    context: int
    vocab_size: int

    def reserve(self, tokens: int) -> None: ...

    def prefill(self, ids: list[int]) -> np.ndarray: ...

    def feed(self, ids: list[int]) -> np.ndarray: ...


class Session:
    """A loaded model. Not for several threads at once: the cache belongs to one conversation at a time."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, runner: SequenceRunner, stop_ids: Collection[int]) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.runner = runner
        self.context: int = runner.context
        self.stop_ids = frozenset(stop_ids)
        if tokenizer.get_vocab_size() > runner.vocab_size:
            sizes = f"{tokenizer.get_vocab_size()} entries, the model {runner.vocab_size}"
            raise InputError(f"{folder}: the tokenizer has {sizes}; they do not match")

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids: a text as it is (special tokens it spells count), turns through the chat format (content is always plain text)."""
        if isinstance(prompt, str):
            try:
                return self.tokenizer.encode(prompt, add_special_tokens=False).ids
            except (UnicodeEncodeError, TypeError) as error:
                raise InputError(f"prompt: not a text that UTF-8 can carry ({error})") from error
        return encode_chat(self.tokenizer, prompt)

    def tokens(self, ids: list[int], max_new_tokens: int, sampling: Sampling) -> Iterator[int]:
        """New token ids until a stop id, `max_new_tokens` or the end of the context; the stop id itself is not given out."""
        if not ids:
            raise InputError("prompt: empty; at least one token is needed")
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be 1 or more, got {max_new_tokens}")
        if len(ids) >= self.context:
            raise InputError(f"prompt: {len(ids)} tokens leave no room for an answer in the context of {self.context}")
        bad = [token for token in ids if not 0 <= token < self.runner.vocab_size]
        if bad:
            raise InputError(f"prompt: token id {bad[0]} is not in the vocabulary of {self.runner.vocab_size}")
        random = np.random.default_rng(sampling.seed)
        last = min(max_new_tokens, self.context - len(ids))
        self.runner.reserve(len(ids) + last)
        logits = self.runner.prefill(ids)
        for number in range(last):
            token = pick(logits, sampling, random)
            if token in self.stop_ids:
                return
            yield token
            if number + 1 < last:
                logits = self.runner.feed([token])

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """The new text piece by piece; a piece never ends inside a character. Closing the iterator stops the model.

        A prompt that does not fit the context is an InputError; an answer that reaches its end stops there.
        """
        sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not all(stops):
            raise InputError("stop: a stop text must not be empty")
        pieces = text_pieces(self.tokens(self.encode(prompt), max_new_tokens, sampling), self.tokenizer)
        return until_stop(pieces, stops) if stops else pieces

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
    ) -> str:
        """The new text only. A text prompt is taken as it is, a list of turns goes through the chat format; temperature 0 is greedy."""
        return "".join(self.stream(prompt, max_new_tokens, temperature, top_p, top_k, seed, stop))


class Package(Session):
    """A loaded package, which can also score whole texts."""

    runner: Runner

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int = 0) -> None:
        self.manifest = manifest
        settings = read_json(folder / "generation_config.json")
        ending = settings.get("eos_token_id") if isinstance(settings, dict) else None
        if ending is None:
            raise InputError(f"{folder / 'generation_config.json'}: no eos_token_id; the ids that end an answer are needed")
        runner = Runner(folder / "model.onnx", manifest, threads)
        super().__init__(folder, load_tokenizer(folder), runner, ending if isinstance(ending, list) else [ending])

    def logits(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Logits after every token, without the cache: float32 (T, V) for a list of ids, (B, T, V) for an array (B, T)."""
        array = np.asarray(ids, np.int64)
        if array.ndim not in (1, 2) or array.size == 0:
            raise InputError(f"logits: ids (T,) or (B, T) with at least one token are needed, got the shape {array.shape}")
        self.check_ids(array)
        return self.runner.score(array) if array.ndim == 2 else self.runner.score(array[None])[0]

    def batch_logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logits after every token of rows of different lengths, float32 (T, V) each.

        All answers are held at once: rows x tokens x vocabulary x 4 bytes. Ask for some hundred rows at a time.
        """
        for row in rows:
            self.check_ids(np.asarray(row, np.int64))
        return self.runner.score_rows([list(row) for row in rows])

    def check_ids(self, ids: np.ndarray) -> None:
        if ids.size and not (ids.min() >= 0 and ids.max() < self.runner.vocab_size):
            raise InputError(f"ids must lie between 0 and {self.runner.vocab_size - 1}, got {ids.min()} to {ids.max()}")


def load_package(folder: str | Path, threads: int = 0) -> Package:
    """A package ready to answer, its files checked against the manifest; `threads` 0 leaves the number to onnxruntime."""
    return Package(Path(folder), open_package(folder), threads)
