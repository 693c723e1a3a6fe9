"""Chat rows as token ids with the loss on the assistant's words only, and the proof that it is so.

The chat template marks the assistant's words with {% generation %}. What it marks is checked on every row before training: the trained
tokens must decode to the assistant's text and the stop token, and the prompt's ids must be those that inference makes of the same turns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.rows import Turn
from data_pipeline.errors import InputError
from data_pipeline.tokens.chat import END, encode_chat
from data_pipeline.tokens.tokenizer import load_tokenizer

IGNORED = -100  # the label that carries no loss


@dataclass(frozen=True)
class Encoded:
    """One conversation: `ids`, and for each id whether it is trained."""

    ids: list[int]
    trained: list[bool]

    @property
    def labels(self) -> list[int]:
        return [token if trained else IGNORED for token, trained in zip(self.ids, self.trained, strict=True)]

    def spans(self) -> list[tuple[int, int]]:
        """Start and exclusive end of every run of trained ids."""
        edges = [at for at in range(len(self.ids) + 1) if self.is_trained(at) != self.is_trained(at - 1)]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def is_trained(self, at: int) -> bool:
        return 0 <= at < len(self.trained) and self.trained[at]


class ChatEncoder:
    """The tokenizer of a model folder, as training uses it (the chat template) and as inference does (`tokenizer.json`)."""

    def __init__(self, folder: Path) -> None:
        """InputError where the folder has no tokenizer with phi-3's special tokens, no chat template or no {% generation %} markers."""
        from transformers import AutoTokenizer

        self.folder = folder
        self.plain = load_tokenizer(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        template = self.tokenizer.chat_template
        if not isinstance(template, str):
            raise InputError(f"{folder}: no chat template; chat_template.jinja is needed")
        if not re.search(r"\{%-?\s*generation\s*-?%\}", template):
            raise InputError(
                f"{folder}: the chat template has no {{% generation %}} markers, so the assistant's words cannot be told from the prompt"
            )
        self.stop_id = self.plain.token_to_id(END)
        self.control_tokens = [token.content for token in self.plain.get_added_tokens_decoder().values() if token.special]

    def encode(self, conversations: Sequence[list[Turn]], names: Sequence[str]) -> list[Encoded]:
        """Ids and trained positions of every conversation, proved; `names` say where each came from, for errors."""
        self.refuse_control_tokens(conversations, names)
        batch = self.tokenizer.apply_chat_template(list(conversations), return_dict=True, return_assistant_tokens_mask=True)
        rows = [Encoded(ids, [bool(flag) for flag in mask]) for ids, mask in zip(batch["input_ids"], batch["assistant_masks"], strict=True)]
        self.prove(rows, conversations, names)
        return rows

    def refuse_control_tokens(self, conversations: Sequence[list[Turn]], names: Sequence[str]) -> None:
        """A control token written out in a turn would end that turn or begin another."""
        pattern = re.compile("|".join(re.escape(token) for token in self.control_tokens))
        for turns, name in zip(conversations, names, strict=True):
            for turn in turns:
                if found := pattern.search(turn["content"]):
                    raise InputError(
                        f"{name}: the {turn['role']} turn contains the control token {found.group()}; turns must be plain text"
                    )

    def prove(self, rows: Sequence[Encoded], conversations: Sequence[list[Turn]], names: Sequence[str]) -> None:
        """InputError where any row trains anything but the assistant's text and the stop token, or differs from inference."""
        prompts = self.inference_prompts(conversations)
        for row, turns, prompt, name in zip(rows, conversations, prompts, names, strict=True):
            spans = row.spans()
            answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
            if len(spans) != len(answers):
                raise InputError(
                    f"{name}: the chat template trains {len(spans)} spans for {len(answers)} assistant turns; each needs one "
                    f"({self.folder}/chat_template.jinja)"
                )
            for (start, end), answer in zip(spans, answers, strict=True):
                self.prove_span(row.ids[start:end], answer, name)
            if row.ids[: spans[-1][0]] != prompt:
                raise InputError(
                    f"{name}: the prompt's ids in training are not those of inference ({self.text(row.ids[: spans[-1][0]])!r:.200} against "
                    f"{self.text(prompt)!r:.200}); the chat template and tokenizer.json disagree"
                )

    def prove_span(self, ids: list[int], answer: str, name: str) -> None:
        text = self.text(ids)
        if self.stop_id not in ids:
            raise InputError(f"{name}: the stop token {END} is not trained, so the model could not learn to stop; trained is {text!r:.200}")
        rest = text.removeprefix(answer + END)
        for token in self.control_tokens:  # templates of others also train the newline and the end of the text after the stop token
            rest = rest.replace(token, "")
        if not text.startswith(answer + END) or rest.strip():
            raise InputError(f"{name}: trained is {text!r:.200}, but the assistant's turn is {answer + END!r:.200}")

    def inference_prompts(self, conversations: Sequence[list[Turn]]) -> list[list[int]]:
        """Ids of everything before the last answer, as inference makes them: by `tokenizer.json` alone, without the template."""
        return [encode_chat(self.plain, turns[:-1]) for turns in conversations]

    def text(self, ids: Sequence[int]) -> str:
        return self.plain.decode(list(ids), skip_special_tokens=False)
