"""Conversations as text and as ids, in the chat format of any member of the family (`chat_format.py`).

Three ways to the same tokens: `render_chat` (text), `encode_chat` (ids) and the format's template (what transformers and trl read).
They differ in one point, on purpose: content that spells a special token. `encode_chat` encodes it as plain text, so no user can write a
turn of another role. A rendered text cannot tell the two apart, so `render_chat` and the template refuse it.
"""

from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.tokens.chat_format import END_OF_TEXT as END_OF_TEXT
from data_pipeline.tokens.chat_format import PHI3, ChatFormat, chat_format, is_special
from data_pipeline.tokens.plain_text import encode_texts

ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
END = "<|end|>"
USER = "<|user|>"
ROLES = ("system", "user", "assistant")

MARKS = PHI3.marks  # what content must not spell: every special token, the placeholders by what they begin with
CHAT_TEMPLATE = PHI3.template()

# The blanks that an added token with `rstrip` takes: Unicode's White_Space, Rust's `\s`. Python's own lstrip() takes U+001C-1F too.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

Turn = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


def check_turns(turns: Sequence[Turn]) -> None:
    """Roles and contents are as the format needs them; otherwise an error that names the turn.

    A system turn may only come first; the last turn's role is free, since training rows end with an answer and prompts with a question.
    """
    if isinstance(turns, str | bytes | Mapping):
        raise InputError("chat: a list of turns like {'role': 'user', 'content': '...'} is needed, got " + type(turns).__name__)
    if not turns:
        raise InputError("chat: no turns; at least one is needed")
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise InputError(f"chat, turn {number}: role and content are needed, got {turn!r:.100}")
        if turn["role"] not in ROLES:
            raise InputError(f"chat, turn {number}: role must be system, user or assistant, got {turn['role']!r:.100}")
        if turn["role"] == "system" and number > 0:
            raise InputError(f"chat, turn {number}: a system turn may only come first")
        if not isinstance(turn["content"], str):
            raise InputError(f"chat, turn {number}: content must be a text, got {type(turn['content']).__name__}")


def render_chat(turns: Sequence[Turn], add_generation_prompt: bool = True, form: ChatFormat = PHI3) -> str:
    """The prompt text; content that spells a special token is refused (see `encode_chat`)."""
    check_turns(turns)
    for number, turn in enumerate(turns):
        found = [mark for mark in form.marks if mark in turn["content"]]
        if found:
            raise InputError(f"chat, turn {number}: content must not spell the special token {found[0]}")
    return "".join(text for _, text in chat_parts(turns, add_generation_prompt, form))


def encode_chat(tokenizer: Tokenizer, turns: Sequence[Turn], add_generation_prompt: bool = True) -> list[int]:
    """The ids of a conversation, equal to those of the rendered text; content is always plain text, whatever it spells.

    The format is the one that the tokenizer's special tokens tell (`chat_format`). Where a special token takes the blanks after it
    (`rstrip`, as in phi-3-mini's later releases), so it does here: the newline after the tag and blanks at the content's start.
    """
    check_turns(turns)
    rstrips = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.rstrip}
    special: list[str] = []  # the special tokens, and after each the plain text up to the next one
    texts: list[str] = [""]
    for is_token, part in chat_parts(turns, add_generation_prompt, chat_format(tokenizer)):
        if is_token:
            special.append(part)
            texts.append("")
        else:
            texts[-1] += part
    stripped = [text.lstrip(WHITE_SPACE) if before in rstrips else text for before, text in zip(["", *special], texts, strict=True)]
    first, *rest = encode_texts(tokenizer, stripped)
    ids = list(first)
    for name, plain in zip(special, rest, strict=True):
        ids += [token_id(tokenizer, name), *plain]
    return ids


def chat_parts(turns: Sequence[Turn], add_generation_prompt: bool, form: ChatFormat) -> Iterator[tuple[bool, str]]:
    """(is a special token, text) of everything that the conversation is written with, in order."""
    yield from ((True, token) for token in form.start)
    for turn in turns:
        yield from ((is_special(part), part) for part in form.opening(turn["role"]))
        yield False, turn["content"]
        yield True, form.end
        yield from ((is_special(part), part) for part in form.after)
    if add_generation_prompt:
        yield from ((is_special(part), part) for part in form.opening("assistant"))


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end an answer: `<|end|>` (phi-4: `<|im_end|>`) and `<|endoftext|>`."""
    return tuple(token_id(tokenizer, name) for name in chat_format(tokenizer).stop_tokens)


def token_id(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise InputError(f"tokenizer: has no token {name}; one of the family is needed")
    return found
