"""A published vocabulary to the folder that `transformers.AutoTokenizer` loads: tokenizer.json and the files beside it.

Three sources, told apart by their content: a SentencePiece model, a tiktoken file, a tokenizer.json. What comes out encodes plain text to
the ids that sentencepiece and tiktoken give, and special tokens to the member's ids.
"""

import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, sha256_of, write_json
from data_pipeline.tokens.members import Member
from data_pipeline.tokens.merges import merge_pairs, run_pairs
from data_pipeline.tokens.sentencepiece_model import CONTROL, NORMAL, SPACE, UNKNOWN, SentencePieceModel, read_sentencepiece
from data_pipeline.tokens.tiktoken_vocabulary import looks_like_tiktoken, read_tiktoken

# How OpenAI's encodings cut text before merging, from tiktoken's tables. cl100k: English endings, a word with one mark or blank before it,
# up to three digits, marks with the newlines after them, blanks up to the last newline, blanks but the last before a word.
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
DIGITS = r"\p{N}{1,3}"
BLANKS = [r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]
CL100K = "|".join([ENDING, r"[^\r\n\p{L}\p{N}]?\p{L}+", DIGITS, r" ?[^\s\p{L}\p{N}]+[\r\n]*", *BLANKS])
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"  # o200k: a word also ends where capitals begin
O200K = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{ENDING}?",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{ENDING}?",
        DIGITS,
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        *BLANKS,
    ]
)
PATTERNS = {"cl100k": CL100K, "o200k": O200K}
# What is written, in this order: tokenizer.json last, so that one that is there has its settings beside it.
WRITTEN = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.json")


@dataclass(frozen=True)
class Source:
    """The file to convert and its bytes."""

    path: Path
    content: bytes


def convert_tokenizer(source: str | Path, destination: str | Path, member: Member, rstrip: bool = True) -> dict[str, Any]:
    """Writes the four files of a tokenizer into the folder `destination`; what else lies there, a model's weights say, stays.

    Returns kind, member, vocab_size, merges and tokenizer.json's SHA-256. A folder of its own is complete or not there at all.
    `rstrip` False is phi-3-mini's first release: a special token leaves the blanks after it alone. A tokenizer.json keeps its own flags.
    """
    file = find_source(Path(source))
    if Path(destination).resolve() in (file.path.resolve(), *file.path.resolve().parents):
        raise InputError(f"{destination}: holds the source {file.path}; another folder is needed")
    if Path(destination).exists() and not Path(destination).is_dir():
        raise InputError(f"{destination}: a folder to write is needed, this is a file")
    kind, tokenizer = build_tokenizer(file, member, rstrip)
    merges = len(json.loads(tokenizer.to_str())["model"]["merges"])
    place_files(tokenizer, member, Path(destination))
    digest = sha256_of(Path(destination) / "tokenizer.json")
    return {"kind": kind, "member": member.name, "vocab_size": tokenizer.get_vocab_size(), "merges": merges, "sha256": digest}


def place_files(tokenizer: Tokenizer, member: Member, folder: Path) -> None:
    """The files as a whole new folder, or where other files lie, beside them: all written first, then renamed into place."""
    if not folder.exists() or all(path.name in WRITTEN for path in folder.iterdir()):
        with atomic_folder(folder) as new:
            write_files(tokenizer, member, new)
        return
    for name in WRITTEN:
        if (folder / name).is_dir():
            raise InputError(f"{folder / name}: a file to write is needed, this is a folder")
    with tempfile.TemporaryDirectory(prefix=".tokenizer.", suffix=".part", dir=folder) as made:
        write_files(tokenizer, member, Path(made))
        for name in WRITTEN:
            os.replace(Path(made) / name, folder / name)


def find_source(path: Path) -> Source:
    """The vocabulary file: `path` itself, or in a folder tokenizer.json, tokenizer.model or the one *.tiktoken file."""
    if path.is_dir():
        found = [name for name in (path / "tokenizer.json", path / "tokenizer.model", *sorted(path.glob("*.tiktoken"))) if name.is_file()]
        if not found:
            raise InputError(f"{path}: has no tokenizer.json, tokenizer.model or *.tiktoken file")
        path = found[0]
    try:
        return Source(path, path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error


def build_tokenizer(file: Source, member: Member, rstrip: bool = True) -> tuple[str, Tokenizer]:
    """What the file is (`tokenizer.json`, `tiktoken` or `sentencepiece`) and the tokenizer made of it."""
    where = str(file.path)
    if not file.content:
        raise InputError(f"{where}: empty; a SentencePiece model, a tiktoken file or a tokenizer.json is needed")
    if file.content.lstrip()[:1] == b"{":
        return "tokenizer.json", read_tokenizer_json(file, member)
    if looks_like_tiktoken(file.content):
        if member.vocabulary not in PATTERNS:
            raise InputError(f"{where}: a tiktoken file; {member.name} has a SentencePiece model")
        return "tiktoken", from_tiktoken(read_tiktoken(file.content, where), member, where)
    if member.vocabulary != "sentencepiece":
        raise InputError(f"{where}: not a tiktoken file (lines of base64, a blank and a rank), which {member.name} has")
    return "sentencepiece", from_sentencepiece(read_sentencepiece(file.content, where), member, where, rstrip)


def check_entries(found: int, member: Member, where: str) -> None:
    if found != member.entries:
        raise InputError(f"{where}: {found:,} entries, {member.name} has {member.entries:,}")


def from_tiktoken(ranks: dict[bytes, int], member: Member, where: str) -> Tokenizer:
    """Bytes become the byte-level alphabet's characters. A word that is an entry as a whole is that entry, as in tiktoken."""
    check_entries(len(ranks), member, where)
    alphabet = byte_alphabet()

    def spelt(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    vocabulary = {spelt(token): rank for token, rank in ranks.items()}
    merges = [(spelt(left), spelt(right)) for left, right in merge_pairs(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(PATTERNS[member.vocabulary]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    add_specials(tokenizer, member, (), False)
    return tokenizer


def byte_alphabet() -> list[str]:
    """Byte -> its character in byte-level BPE: printable Latin-1 as it is, the rest from U+0100 on, in order (GPT-2's rule)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def from_sentencepiece(model: SentencePieceModel, member: Member, where: str, rstrip: bool) -> Tokenizer:
    """BPE over the whole text with blanks as U+2581 and, as Llama has it, one such before the text; unknown characters as bytes.

    Only normal pieces are ever joined: control pieces and bytes are no text to SentencePiece.
    """
    check_entries(len(model.pieces), member, where)
    vocabulary = {piece: number for number, piece in enumerate(model.pieces)}
    merges = piece_merges(model, where)
    lost = next((part for pair in merges for part in pair if part not in vocabulary or model.types[vocabulary[part]] != NORMAL), None)
    if lost is not None:
        raise InputError(
            f"{where}: a piece is joined from {lost!r:.60}, which is no piece; the merges cannot be written as pairs of pieces"
        )
    unknown = model.pieces[model.types.index(UNKNOWN)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend(SPACE)] if model.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])  # type: ignore[assignment]
    strip = [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    controls = tuple(piece for piece, kind in zip(model.pieces, model.types, strict=True) if kind in (UNKNOWN, CONTROL))
    add_specials(tokenizer, member, controls, rstrip)
    return tokenizer


def piece_merges(model: SentencePieceModel, where: str) -> list[tuple[str, str]]:
    """The merges of the normal pieces, highest score first. Single characters are joined from nothing, so their scores do not matter."""
    scores = {
        piece: score
        for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True)
        if kind == NORMAL and len(piece) > 1
    }
    order = sorted(scores, key=lambda piece: -scores[piece])
    counts = Counter(scores.values())
    tied = [piece for piece in order if counts[scores[piece]] > 1]
    if not tied:
        return merge_pairs({piece: rank for rank, piece in enumerate(order)})
    if len({scores[piece] for piece in tied}) > 1 or order[-len(tied) :] != tied:
        raise InputError(f"{where}: pieces {tied[0]!r:.60} and {tied[1]!r:.60} have equal scores, so their merges have no order")
    single = order[: -len(tied)]
    return merge_pairs({piece: rank for rank, piece in enumerate(single)}) + run_pairs(tied, single, where)


def add_specials(tokenizer: Tokenizer, member: Member, inside: tuple[str, ...], rstrip: bool) -> None:
    """The special tokens of the vocabulary itself (`inside`) and the member's after it, which must get the member's ids."""
    names = [*inside, *member.specials]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False, rstrip=rstrip and name in member.strips) for name in names]
    )
    check_specials(tokenizer, member, "the vocabulary")


def check_specials(tokenizer: Tokenizer, member: Member, where: str) -> None:
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    for name, number in member.special_ids().items():
        found = tokenizer.token_to_id(name)
        if found != number or name not in added:
            raise InputError(
                f"{where}: {name} must be the special token {number} of {member.name}, got {found if found != number else 'text'}"
            )


def read_tokenizer_json(file: Source, member: Member) -> Tokenizer:
    """The tokenizer of a tokenizer.json that has the member's vocabulary size and special tokens."""
    try:
        tokenizer = Tokenizer.from_str(file.content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{file.path}: not a tokenizer ({json.dumps(str(error))})") from error
    if not isinstance(tokenizer.model, models.BPE):
        raise InputError(f"{file.path}: a BPE tokenizer is needed, got {type(tokenizer.model).__name__}")
    check_entries(sum(number < member.entries for number in tokenizer.get_vocab().values()), member, str(file.path))
    used = {
        name: number for name, number in member.special_ids().items() if name in tokenizer.get_vocab() or name in member.format.required
    }
    for name, number in used.items():
        if tokenizer.token_to_id(name) != number:
            raise InputError(f"{file.path}: {name} must be the token {number} of {member.name}, got {tokenizer.token_to_id(name)}")
    return tokenizer


def write_files(tokenizer: Tokenizer, member: Member, folder: Path) -> None:
    """All of WRITTEN."""
    names = {"bos_token": member.bos, "eos_token": member.eos, "pad_token": member.pad}
    if member.vocabulary == "sentencepiece":
        names["unk_token"] = "<unk>"
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(number): {flag: getattr(token, flag) for flag in flags}
            for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        },
        **names,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",  # as published: answers begin at the same place in a batch
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", names)
    (folder / "chat_template.jinja").write_text(member.format.template(), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
