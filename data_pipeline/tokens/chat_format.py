"""The chat formats of the family, each in one table: what stands before and after a turn, and which tokens may not be spelt in content.

Sources: the published chat templates. phi-3-mini and -medium: role tag, newline, content, `<|end|>`, newline. phi-3-small: the same after
one `<|endoftext|>`. phi-4-mini: no newlines. phi-4: `<|im_start|>`, role, `<|im_sep|>`, content, `<|im_end|>`. The published templates end
with the end-of-sequence token where no generation prompt is asked for; ours end with the last turn, since a text is closed by whoever
packs it. phi-3-medium's first template wrote `<|assistant|>` after each user turn by itself and had no system turn; ours is the later one.
"""

from dataclasses import dataclass, replace

from tokenizers import Tokenizer

ROLES = ("system", "user", "assistant")
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class ChatFormat:
    """`before` a turn and `after` it are special tokens and plain text in turn; `{role}` stands for the role in either."""

    name: str
    start: tuple[str, ...]  # before the first turn
    before: tuple[str, ...]
    end: str  # the token after the content
    after: tuple[str, ...]  # what follows `end`
    marks: tuple[str, ...]  # what content must not spell: special tokens, the numbered ones by what they begin with

    def opening(self, role: str) -> tuple[str, ...]:
        """The parts before the content of a turn."""
        return tuple(part.replace("{role}", role) for part in self.before)

    @property
    def stop_tokens(self) -> tuple[str, str]:
        """What ends an answer."""
        return (self.end, END_OF_TEXT)

    @property
    def required(self) -> tuple[str, ...]:
        """The special tokens that a tokenizer must have to speak this format."""
        parts = [part for role in ROLES for part in (*self.opening(role), *self.after)]
        return tuple(dict.fromkeys([END_OF_TEXT, self.end, *(part for part in parts if is_special(part)), *self.start]))

    def template(self) -> str:
        """The Jinja chat template, on one line without whitespace control: the browser's Jinja drops only the spelling
        `{% generation %}`. The generation block, which trl's assistant_only_loss trains on, is the answer and its end token."""
        marks = ", ".join(f"'{mark}'" for mark in self.marks)
        after = quoted("".join(self.after))
        return (
            (f"{{{{ {quoted(''.join(self.start))} }}}}" if self.start else "") + "{% for message in messages %}"
            f"{{% for mark in [{marks}] %}}"
            "{% if mark in message['content'] %}{{ raise_exception('content must not spell the special token ' + mark) }}{% endif %}"
            "{% endfor %}"
            "{% if message['role'] == 'assistant' %}"
            f"{{{{ {quoted(''.join(self.opening('assistant')))} }}}}"
            f"{{% generation %}}{{{{ message['content'] + {quoted(self.end)} }}}}{{% endgeneration %}}"
            + (f"{{{{ {after} }}}}" if self.after else "")
            + "{% elif message['role'] == 'user' or message['role'] == 'system' %}"
            f"{{{{ {self._role_expression()} + message['content'] + {quoted(self.end + ''.join(self.after))} }}}}"
            "{% else %}{{ raise_exception('a role must be system, user or assistant') }}{% endif %}"
            "{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ {quoted(''.join(self.opening('assistant')))} }}}}{{% endif %}}"
        )

    def _role_expression(self) -> str:
        """What stands before a turn as a Jinja expression of message['role']."""
        left, right = "".join(self.before).split("{role}")
        return f"{quoted(left)} + message['role'] + {quoted(right)}"


def is_special(part: str) -> bool:
    return part.startswith("<|") and part.endswith("|>")


def quoted(text: str) -> str:
    """A Jinja string."""
    return "'" + text.replace("\n", "\\n") + "'"


def marks(*names: str) -> tuple[str, ...]:
    return (END_OF_TEXT, "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", *names)


OPENAI = ("<|fim_", "<|endofprompt|>")  # special tokens of cl100k
PHI3 = ChatFormat("phi-3", (), ("<|{role}|>", "\n"), "<|end|>", ("\n",), marks("<|placeholder"))
PHI3_LLAMA = replace(PHI3, marks=(*PHI3.marks, "<s>", "</s>", "<unk>"))  # mini and medium as published, on Llama-2's vocabulary
PHI3_SMALL = ChatFormat("phi-3-small", (END_OF_TEXT,), ("<|{role}|>", "\n"), "<|end|>", ("\n",), marks("<|dummy_id_", *OPENAI))
PHI4_MINI = ChatFormat("phi-4-mini", (), ("<|{role}|>",), "<|end|>", (), marks("<|tool|>", "<|endofprompt|>", "<|unused_"))
PHI4 = ChatFormat(
    "phi-4",
    (),
    ("<|im_start|>", "{role}", "<|im_sep|>"),
    "<|im_end|>",
    (),
    (END_OF_TEXT, "<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|dummy_", *OPENAI),
)
TELLING = {
    "<|im_sep|>": PHI4,
    "<|dummy_id_0|>": PHI3_SMALL,
    "<|tool|>": PHI4_MINI,
    "<s>": PHI3_LLAMA,
}  # special tokens that only one format has


def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    """The format that a tokenizer's special tokens tell; phi-3's where none tells another."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return next((form for token, form in TELLING.items() if token in added), PHI3)
