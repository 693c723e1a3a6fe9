"""Text to ids where nothing in the text may become a special token."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from data_pipeline.errors import InputError


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of plain texts; the spelling of a special token in a text is text, never the special token."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True  # the library's name for "encode them as text"
    try:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    except TypeError:
        for number, text in enumerate(texts):
            utf8(text, f"text {number}")
        raise
    finally:
        tokenizer.encode_special_tokens = before


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of one plain text; no special token ever comes out."""
    return encode_texts(tokenizer, [text])[0]


def utf8(text: str, where: str) -> bytes:
    """The text's bytes; a lone surrogate, which UTF-8 cannot carry, is an error."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid Unicode text (a lone surrogate at character {error.start}); UTF-8 text is needed") from error
