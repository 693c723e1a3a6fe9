"""The byte-level BPE: training, the folder that transformers loads, and loading.

Special tokens are phi-3's, in phi-3's order. They come first, so that their ids (phi-3's minus 32,000) are the same at
every vocabulary size. There is no BOS; `<|endoftext|>` ends a document and is the padding token. Any UTF-8 text is
encoded without loss: every byte is an entry.

The text is cut before merging: words with the space before them, single digits, runs of marks, runs of blanks, and each newline alone.
A newline that is never merged makes the tokens of a chat prompt a prefix of the whole conversation's, whatever the answer begins with.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, sha256_of, write_json
from data_pipeline.tokens.chat import ASSISTANT, CHAT_TEMPLATE, END, END_OF_TEXT, SYSTEM, USER
from data_pipeline.tokens.chat_format import chat_format
from data_pipeline.tokens.plain_text import encode_text, utf8
from data_pipeline.tokens.recipe import TokenizerRecipe

__all__ = ["encode_text", "end_of_text_id", "load_tokenizer", "train_tokenizer"]

SPECIAL_TOKENS = (
    END_OF_TEXT,
    ASSISTANT,
    *(f"<|placeholder{number}|>" for number in (1, 2, 3, 4)),
    SYSTEM,
    END,
    *(f"<|placeholder{number}|>" for number in (5, 6)),
    USER,
)
ROUND_TO = 64  # vocabulary sizes are multiples of this: matrix kernels and 4-bit blocks stay aligned
PLAIN_MATCH = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}  # found as spelled, blanks untouched

WORD = r"[\p{L}\p{M}]"
ENDING = rf"'(?:[sdmt]|ll|ve|re)(?!{WORD})"  # English: it's, don't, we'll
MARKS = r" ?[^\s\p{L}\p{M}\p{N}]+"
BLANKS = r"\n|[^\S\n]+(?!\S)|[^\S\n]+"


def train_tokenizer(recipe: TokenizerRecipe, texts: Iterable[str], out: Path) -> dict[str, Any]:
    """Trains on `texts` and writes the folder `out`, complete or not at all.

    Deterministic: equal texts give equal bytes. Returns vocab_size (a multiple of 64), merges, documents, bytes and tokenizer.json's
    SHA-256. Where the texts hold fewer pairs than asked for, the vocabulary is what they hold, filled up to a multiple of 64 with
    placeholders.
    """
    tokenizer = empty_tokenizer(recipe)
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=recipe.min_frequency,
        special_tokens=[special(name) for name in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=recipe.max_token_length,
        show_progress=False,
    )
    seen = Counted(texts)
    tokenizer.train_from_iterator(seen, trainer)
    if seen.documents == 0:
        raise InputError("tokenizer: no text to train on; at least one document that is not empty is needed")
    learnt = tokenizer.get_vocab_size()
    filler = -learnt % ROUND_TO
    tokenizer.add_special_tokens([special(f"<|placeholder{number}|>") for number in range(7, 7 + filler)])
    with atomic_folder(out) as folder:
        write_tokenizer_folder(tokenizer, folder)
        digest = sha256_of(folder / "tokenizer.json")
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "asked_vocab_size": recipe.vocab_size,
        "merges": learnt - len(SPECIAL_TOKENS) - 256,
        "placeholders_added": filler,
        "documents": seen.documents,
        "bytes": seen.bytes,
        "sha256": digest,
    }


class Counted:
    """Passes texts on and counts them; lone surrogates, which UTF-8 cannot carry, are an error that names the document."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.documents = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self.texts):
            if not text:
                continue
            self.bytes += len(utf8(text, f"text {number}"))
            self.documents += 1
            yield text


def special(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)


def empty_tokenizer(recipe: TokenizerRecipe) -> Tokenizer:
    """The tokenizer before training: how text is cut, and how tokens become text again."""
    digits = r"\p{N}" if recipe.split_digits else r"\p{N}{1,3}"
    pattern = "|".join([ENDING, rf" ?{WORD}+", digits, MARKS, BLANKS])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return tokenizer


def write_tokenizer_folder(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json and the files beside it that `transformers.AutoTokenizer` reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        },
        "bos_token": None,
        **names,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", names)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder (its tokenizer.json), or of the file itself; an error of one line where it is missing or broken.

    Its `encode` reads special tokens that stand in the text; `encode_text` never does.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; a folder written by `phial tokenizer train` is needed") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path}: not a file; a folder written by `phial tokenizer train` is needed") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a tokenizer (not UTF-8)") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({json.dumps(str(error))})") from error
    missing = [name for name in chat_format(tokenizer).required if tokenizer.token_to_id(name) is None]
    if missing:
        raise InputError(f"{path}: has no token {missing[0]}; a tokenizer with phi-3's special tokens is needed")
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """The id of `<|endoftext|>`: the end of a document, and the padding."""
    return tokenizer.token_to_id(END_OF_TEXT)  # type: ignore[return-value]  # load_tokenizer saw that it is there
