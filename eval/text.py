"""The text side of a model folder: tokenizer, chat template, and the tokens that end an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json

Turns = Sequence[dict[str, str]]


@dataclass(frozen=True)
class TextSide:
    """Text to tokens as the model was trained: no token is added to what the prompt spells out (so no beginning-of-sequence token)."""

    tokenizer: Tokenizer
    chat_template: str | None
    special: dict[str, str]  # bos_token, eos_token, ... as the template sees them
    stop_ids: frozenset[int]
    files: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path) -> "TextSide":
        """Reads tokenizer.json, and where they are tokenizer_config.json, chat_template.jinja and generation_config.json."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{folder}: no tokenizer.json; scores are over text, so a model folder needs its tokenizer")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises a bare Exception
            raise InputError(f"{path}: not a tokenizer ({error})") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _optional_json(folder / "tokenizer_config.json")
        generation = _optional_json(folder / "generation_config.json")
        special = {name: _content(value) for name, value in config.items() if name.endswith("_token") and _content(value)}
        template = folder / "chat_template.jinja"
        chat_template = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
        names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
        return cls(
            tokenizer=tokenizer,
            chat_template=chat_template if isinstance(chat_template, str) else None,
            special=special,
            stop_ids=stop_tokens(tokenizer, special, generation),
            files=tuple(folder / name for name in names if (folder / name).is_file()),
        )

    @cached_property
    def template_hash(self) -> str | None:
        """The first 12 hexadecimal digits of the chat template's SHA-256."""
        return None if self.chat_template is None else sha256(self.chat_template.encode()).hexdigest()[:12]

    @cached_property
    def turn_end(self) -> str:
        """What ends an answer in a conversation: `<|end|>` where the tokenizer has it, else its end-of-text token."""
        return "<|end|>" if self.tokenizer.token_to_id("<|end|>") is not None else self.special.get("eos_token", "")

    @cached_property
    def start_id(self) -> int:
        """The token that stands before a document: the end-of-text token, which ended the document before it in training."""
        name = self.special.get("eos_token", "<|endoftext|>")
        found = self.tokenizer.token_to_id("<|endoftext|>")
        found = self.tokenizer.token_to_id(name) if found is None else found
        if found is None:
            raise InputError(f"the tokenizer has neither <|endoftext|> nor its eos_token {name!r}, which must stand before a document")
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids; special tokens only where the text spells them."""
        return [one.ids for one in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def chat(self, turns: Turns, answer_next: bool) -> str:
        """The conversation in the model's chat format; with `answer_next` it ends where the assistant begins to speak."""
        from transformers.utils.chat_template_utils import render_jinja_template

        special: dict[str, Any] = dict(self.special)
        if self.chat_template is None:
            raise InputError("the model has no chat template; give it --no-chat prompts")
        try:
            rendered, _ = render_jinja_template(
                [list(turns)], chat_template=self.chat_template, add_generation_prompt=answer_next, **special
            )
        except TemplateError as error:
            raise InputError(f"the chat template does not take the turns of {str(list(turns))[:80]}: {error}") from error
        return rendered[0]


def stop_tokens(tokenizer: Tokenizer, special: dict[str, str], generation: dict[str, Any]) -> frozenset[int]:
    """The ids that end an answer: generation_config's eos_token_id, the tokenizer's eos_token, and phi-3's end marks."""
    named = generation.get("eos_token_id")
    ids: set[int] = {named} if isinstance(named, int) else set(named or ())
    for mark in (special.get("eos_token"), "<|end|>", "<|endoftext|>"):
        found = tokenizer.token_to_id(mark) if mark else None
        if found is not None:
            ids.add(found)
    return frozenset(ids)


def _optional_json(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _content(value: Any) -> str:
    """A special token as written: a string, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
