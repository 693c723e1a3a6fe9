"""phi-3's chat format: a turn is role tag, newline, content, `<|end|>`, newline.

Three ways to the same tokens: `render_chat` (text), `encode_chat` (ids) and CHAT_TEMPLATE (what transformers and trl read). They differ in
one point, on purpose: content that spells a special token. `encode_chat` encodes it as plain text, so no user can write a turn of another
role. A rendered text cannot tell the two apart, so `render_chat` and the template refuse it.
"""

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.tokens.plain_text import encode_texts

END_OF_TEXT = "<|endoftext|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
END = "<|end|>"
USER = "<|user|>"
TAGS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
STOP_TOKENS = (END, END_OF_TEXT)

# What content must not spell: every special token, the placeholders by what they begin with.
MARKS = (END_OF_TEXT, ASSISTANT, SYSTEM, END, USER, "<|placeholder")

# One line without whitespace control: the browser's Jinja drops only the exact spelling `{% generation %}`. The generation block is what
# trl's assistant_only_loss trains on: the answer and its <|end|>.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% for mark in [" + ", ".join(f"'{mark}'" for mark in MARKS) + "] %}"
    "{% if mark in message['content'] %}{{ raise_exception('content must not spell the special token ' + mark) }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% elif message['role'] == 'user' or message['role'] == 'system' %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% else %}{{ raise_exception('a role must be system, user or assistant') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

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
        if turn["role"] not in TAGS:
            raise InputError(f"chat, turn {number}: role must be system, user or assistant, got {turn['role']!r:.100}")
        if turn["role"] == "system" and number > 0:
            raise InputError(f"chat, turn {number}: a system turn may only come first")
        if not isinstance(turn["content"], str):
            raise InputError(f"chat, turn {number}: content must be a text, got {type(turn['content']).__name__}")


def render_chat(turns: Sequence[Turn], add_generation_prompt: bool = True) -> str:
    """The prompt text; content that spells a special token is refused (see `encode_chat`)."""
    check_turns(turns)
    for number, turn in enumerate(turns):
        found = [mark for mark in MARKS if mark in turn["content"]]
        if found:
            raise InputError(f"chat, turn {number}: content must not spell the special token {found[0]}")
    text = "".join(f"{TAGS[turn['role']]}\n{turn['content']}{END}\n" for turn in turns)
    return text + f"{ASSISTANT}\n" if add_generation_prompt else text


def encode_chat(tokenizer: Tokenizer, turns: Sequence[Turn], add_generation_prompt: bool = True) -> list[int]:
    """The ids of a conversation, equal to those of the rendered text; content is always plain text, whatever it spells."""
    check_turns(turns)
    newline, *contents = encode_texts(tokenizer, ["\n", *(f"\n{turn['content']}" for turn in turns)])
    ids: list[int] = []
    for turn, content in zip(turns, contents, strict=True):
        ids += [token_id(tokenizer, TAGS[turn["role"]]), *content, token_id(tokenizer, END), *newline]
    return [*ids, token_id(tokenizer, ASSISTANT), *newline] if add_generation_prompt else ids


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end an answer: `<|end|>` and `<|endoftext|>`."""
    return tuple(token_id(tokenizer, name) for name in STOP_TOKENS)


def token_id(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise InputError(f"tokenizer: has no token {name}; one with phi-3's special tokens is needed")
    return found
