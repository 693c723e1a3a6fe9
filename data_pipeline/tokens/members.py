"""The members of the family and their tokenizers: vocabulary, special tokens with their ids, and chat format.

Where the special tokens come from:
- mini, medium: the added tokens of the published Phi-3-mini tokenizer, ids 32000 to 32010 on Llama-2's 32,000 pieces. The first release
  (April 2024) left blanks after a special token alone; later ones have `rstrip`, so that the newline after a tag belongs to the tag.
- small: the published Phi3SmallTokenizer (tokenization_phi3_small.py): cl100k_base's 100,256 tokens, 96 special tokens up to 100,352.
- phi-4: torchtune's Phi4Tokenizer and Microsoft.ML.Tokenizers, which agree: cl100k_base again, with other special tokens.
- phi-4-mini: o200k_base's 199,998 tokens. <|endoftext|>, <|assistant|>, <|end|>, <|user|> and <|tool|> are confirmed by programs that
  address them by id; <|system|> is the one free id between <|user|> and <|tool|>. Ids without a known name have a filler of ours; those
  after <|tool|> are left out.
"""

from dataclasses import dataclass
from typing import Literal

from data_pipeline.errors import InputError
from data_pipeline.tokens.chat_format import END_OF_TEXT, PHI3_LLAMA, PHI3_SMALL, PHI4, PHI4_MINI, ChatFormat

Vocabulary = Literal["sentencepiece", "cl100k", "o200k"]


@dataclass(frozen=True)
class Member:
    """One model's tokenizer. The special tokens follow the vocabulary: `specials[i]` has the id `entries + i`."""

    name: str
    vocabulary: Vocabulary
    entries: int  # of the vocabulary file
    specials: tuple[str, ...]
    format: ChatFormat
    bos: str
    eos: str
    pad: str
    strips: tuple[str, ...] = ()  # the special tokens that take the blanks after them

    def special_ids(self) -> dict[str, int]:
        """Name -> id of the special tokens after the vocabulary."""
        return {name: self.entries + number for number, name in enumerate(self.specials)}


def numbered(pattern: str, numbers: range) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in numbers)


FILL_IN = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")

PHI3_SPECIALS = (
    END_OF_TEXT,
    "<|assistant|>",
    *numbered("<|placeholder{}|>", range(1, 5)),
    "<|system|>",
    "<|end|>",
    *numbered("<|placeholder{}|>", range(5, 7)),
    "<|user|>",
)
SMALL_SPECIALS = (  # from 100256
    "<|dummy_id_2|>",
    END_OF_TEXT,
    *FILL_IN,
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    *numbered("<|dummy_id_{}|>", range(2)),
    "<|end|>",
    *numbered("<|dummy_id_{}|>", range(3, 12)),
    "<|endofprompt|>",
    *numbered("<|dummy_id_{}|>", range(12, 87)),
)
PHI4_SPECIALS = (  # from 100256
    "<|dummy_0|>",
    END_OF_TEXT,
    *FILL_IN,
    *numbered("<|dummy_{}|>", range(1, 4)),
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    *numbered("<|dummy_{}|>", range(4, 13)),
    "<|endofprompt|>",
    *numbered("<|dummy_{}|>", range(13, 88)),
)
PHI4_MINI_SPECIALS = (  # from 199998
    "<|unused_0|>",
    END_OF_TEXT,
    *numbered("<|unused_{}|>", range(1, 19)),
    "<|endofprompt|>",
    "<|assistant|>",
    "<|end|>",
    "<|user|>",
    "<|system|>",
    "<|tool|>",
)

LLAMA_STRIPS = ("</s>", *PHI3_SPECIALS[1:])
MINI = Member("mini", "sentencepiece", 32_000, PHI3_SPECIALS, PHI3_LLAMA, "<s>", END_OF_TEXT, END_OF_TEXT, LLAMA_STRIPS)
MEMBERS = {
    "mini": MINI,
    "medium": Member("medium", "sentencepiece", 32_000, PHI3_SPECIALS, PHI3_LLAMA, "<s>", END_OF_TEXT, END_OF_TEXT, LLAMA_STRIPS),
    "small": Member("small", "cl100k", 100_256, SMALL_SPECIALS, PHI3_SMALL, END_OF_TEXT, END_OF_TEXT, END_OF_TEXT),
    "phi-4": Member("phi-4", "cl100k", 100_256, PHI4_SPECIALS, PHI4, END_OF_TEXT, "<|im_end|>", "<|dummy_85|>"),
    "phi-4-mini": Member("phi-4-mini", "o200k", 199_998, PHI4_MINI_SPECIALS, PHI4_MINI, END_OF_TEXT, END_OF_TEXT, END_OF_TEXT),
}


def member_named(name: str) -> Member:
    """The member of that name; an error that lists the names otherwise."""
    if name not in MEMBERS:
        raise InputError(f"--member: one of {', '.join(MEMBERS)} is needed, got {name!r:.60}")
    return MEMBERS[name]
