"""Prompts as data: what a question looks like to the model, and how it is made to fit the context."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.benchmarks import LETTERS, ChoiceItem
from data_pipeline.errors import InputError
from eval.text import TextSide


@dataclass(frozen=True, kw_only=True)
class ChoiceProtocol:
    """How a four-way question is asked. Both scorings read the same prompt: " A" to " D" after it, or the options' texts after it.

    In chat form the question is one user turn without the header, shots are turns before it, and the answer is the assistant's first token.
    """

    name: str = "lm-eval"
    header: str = "The following are multiple choice questions (with answers) about {subject}.\n\n"
    question: str = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"
    strip_question: bool = True
    delimiter: str = " "
    separator: str = "\n\n"
    ending: str = "\n"  # counted with an option's text, since 7 begins 7000; in chat form the mark that ends an answer
    shots: int = 0
    chat: bool = False
    bos: str = "none"
    chat_template: str | None = None  # its hash

    def __post_init__(self) -> None:
        if not 0 <= self.shots <= 5:
            raise InputError(f"shots = {self.shots}: MMLU's dev split has 5 items per subject, so 0 to 5 are possible")

    def body(self, item: ChoiceItem) -> str:
        """The question with its lettered options, up to "Answer:"."""
        question = item.question.strip() if self.strip_question else item.question
        # Replaced one by one: str.format would read braces that the question holds.
        text = self.question
        for name, value in zip(("{question}", *("{" + letter + "}" for letter in LETTERS)), ("\0", *"\1\2\3\4"), strict=True):
            text = text.replace(name, value)
        for value, mark in zip((question, *item.options), "\0\1\2\3\4", strict=True):
            text = text.replace(mark, value, 1)
        return text


# The original script leaves two spaces before the subject and does not strip the question.
PROTOCOLS = {
    "lm-eval": ChoiceProtocol(),
    "hendrycks": ChoiceProtocol(
        name="hendrycks",
        header="The following are multiple choice questions (with answers) about  {subject}.\n\n",
        strip_question=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Token ids of a context with its possible continuations, and what had to be left out to make it fit."""

    context: tuple[int, ...]
    letters: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[int, ...], ...]
    shots_dropped: int
    tokens_cut: int  # from the left of the context


def protocol_hash(protocol: dict[str, Any]) -> str:
    """12 hexadecimal digits over every setting: equal hashes, comparable scores."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def described(protocol: ChoiceProtocol) -> dict[str, Any]:
    """The protocol as printed beside every score, with its hash."""
    fields = dataclasses.asdict(protocol)
    if protocol.chat:
        fields.update(header="", delimiter="", separator="one chat turn each", ending="the end of the turn")
    return {**fields, "hash": protocol_hash(fields)}


def choice_text(protocol: ChoiceProtocol, text: TextSide, item: ChoiceItem, shots: Sequence[ChoiceItem]) -> tuple[str, str]:
    """The prompt's text and the delimiter between it and an answer."""
    if protocol.chat:
        turns = []
        for shot in shots:
            turns += [{"role": "user", "content": protocol.body(shot)}, {"role": "assistant", "content": LETTERS[shot.answer]}]
        return text.chat([*turns, {"role": "user", "content": protocol.body(item)}], answer_next=True), ""
    parts = [f"{protocol.body(shot)}{protocol.delimiter}{LETTERS[shot.answer]}{protocol.separator}" for shot in shots]
    header = protocol.header.replace("{subject}", item.subject.replace("_", " "))
    return header + "".join(parts) + protocol.body(item), protocol.delimiter


def choice_prompt(protocol: ChoiceProtocol, text: TextSide, item: ChoiceItem, shots: Sequence[ChoiceItem], context: int) -> Prompt:
    """The prompt with as many shots as fit `context` tokens, dropped from the end of the list; a question that does not fit alone is cut
    on the left, so that its options and "Answer:" stay."""
    shots, count = shots[: protocol.shots], len(shots[: protocol.shots])
    ending = text.turn_end if protocol.chat else protocol.ending
    while True:
        prompt, delimiter = choice_text(protocol, text, item, shots[:count])
        answers = [delimiter + letter for letter in LETTERS] + [delimiter + option.strip() + ending for option in item.options]
        ids, continuations = split_joined(text, prompt, answers)
        longest = max(len(one) for one in continuations)
        room = context - longest + 1
        if len(ids) <= room or count == 0:
            break
        count -= 1
    if room < 1:
        raise InputError(f"{item.id}: an option of {longest} tokens does not fit a context of {context}")
    return Prompt(
        context=ids[-room:],
        letters=continuations[:4],
        texts=continuations[4:],
        shots_dropped=len(shots) - count,
        tokens_cut=max(0, len(ids) - room),
    )


def split_joined(text: TextSide, prompt: str, answers: Sequence[str]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Tokenises prompt and answer as one string each, then splits all at one place: the longest prefix that they share with the prompt.

    Tokenising the halves apart would give other tokens where a token spans the joint. One place for all answers keeps their
    log-probabilities comparable: the same tokens are left out of each.
    """
    alone, *joined = text.encode([prompt, *(prompt + answer for answer in answers)])
    split = min(common_prefix(alone, one) for one in joined)
    # An answer whose tokens all lie in the shared prefix, or a prompt without one, leaves nothing to measure.
    split = min(split, *(len(one) - 1 for one in joined))
    if split < 1:
        raise InputError(f"the prompt {prompt[:40]!r} has no token in common with its answers")
    return tuple(joined[0][:split]), tuple(tuple(one[split:]) for one in joined)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading ids are equal."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
