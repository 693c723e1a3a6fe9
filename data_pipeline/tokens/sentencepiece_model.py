"""Reads a SentencePiece model file (`tokenizer.model`) without the sentencepiece package: a small protobuf.

Field numbers are those of sentencepiece_model.proto: ModelProto has pieces = 1 (piece = 1, score = 2, type = 3), trainer_spec = 2
(model_type = 3, byte_fallback = 35, treat_whitespace_as_suffix = 24) and normalizer_spec = 3 (precompiled_charsmap = 2,
add_dummy_prefix = 3, remove_extra_whitespaces = 4, escape_whitespaces = 5). Everything else in the file is passed over.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipeline.errors import InputError

SPACE = "\u2581"  # what SentencePiece writes for a blank
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # piece types; 4 is user defined, 5 unused
TYPE_NAMES = {4: "user-defined", 5: "unused"}
MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf wire types
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]

Value = int | bytes


@dataclass(frozen=True)
class SentencePieceModel:
    """What the conversion needs of a BPE model with byte fallback.

    `pieces` is in id order. `types` has one of NORMAL, UNKNOWN, CONTROL and BYTE per piece; `scores` orders the merges, highest first.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    add_dummy_prefix: bool


def read_sentencepiece(content: bytes, where: str) -> SentencePieceModel:
    """The checked model; an InputError that names `where` for anything that could not be encoded exactly as SentencePiece does."""
    raw_pieces: list[bytes] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in fields(content, where):
        if number in (1, 2, 3) and not isinstance(value, bytes):
            raise InputError(f"{where}: not a SentencePiece model (field {number} holds no message)")
        if number == 1:
            raw_pieces.append(value)  # type: ignore[arg-type]
        elif number in (2, 3):
            (trainer if number == 2 else normalizer).update(fields(value, where))  # type: ignore[arg-type]
    if not raw_pieces:
        raise InputError(f"{where}: not a SentencePiece model (no pieces in it)")
    rows = [read_piece(raw, number, where) for number, raw in enumerate(raw_pieces)]
    model = SentencePieceModel(
        pieces=tuple(row[0] for row in rows),
        scores=tuple(row[1] for row in rows),
        types=tuple(row[2] for row in rows),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
    )
    check_trainer(trainer, where)
    check_normalizer(normalizer, where)
    check_pieces(model, where)
    return model


def fields(content: bytes, where: str) -> Iterator[tuple[int, Value]]:
    """(field number, value) of a message in file order: an int for a varint, the raw bytes for the rest."""
    at = 0
    while at < len(content):
        key, at = varint(content, at, where)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(content, at, where)
            yield number, value
            continue
        if wire == LENGTH:
            size, at = varint(content, at, where)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise InputError(f"{where}: not a SentencePiece model (wire type {wire} at byte {at})")
        if number == 0:
            raise InputError(f"{where}: not a SentencePiece model (field number 0 at byte {at})")
        if at + size > len(content):
            raise InputError(
                f"{where}: the SentencePiece model is cut off ({size:,} bytes announced at byte {at:,}, {len(content) - at:,} left)"
            )
        yield number, content[at : at + size]
        at += size


def varint(content: bytes, at: int, where: str) -> tuple[int, int]:
    """The number that begins at byte `at`, seven bits per byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise InputError(f"{where}: the SentencePiece model is cut off (in a number at its end, byte {at:,})")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InputError(f"{where}: not a SentencePiece model (a number of more than ten bytes before byte {at:,})")


def read_piece(raw: bytes, number: int, where: str) -> tuple[str, float, int]:
    """Text, score and type of one piece."""
    values = dict(fields(raw, where))
    text, score, kind = values.get(1, b""), values.get(2, b"\0\0\0\0"), values.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4 or not isinstance(kind, int):
        raise InputError(f"{where}: not a SentencePiece model (piece {number} has no text, float score and type)")
    try:
        return text.decode("utf-8"), struct.unpack("<f", score)[0], kind
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not a SentencePiece model (piece {number} is not UTF-8)") from error


def check_trainer(trainer: dict[int, Value], where: str) -> None:
    kind = trainer.get(3, 1)
    if kind != 2:
        raise InputError(f"{where}: a SentencePiece model of type BPE is needed, got {MODEL_TYPES.get(kind, kind)}")  # type: ignore[arg-type]
    if not trainer.get(35, 0):
        raise InputError(f"{where}: a SentencePiece model with byte fallback is needed, this one was trained without it")
    if trainer.get(24, 0):
        raise InputError(f"{where}: blanks must begin a piece; this SentencePiece model has them at the end (treat_whitespace_as_suffix)")


def check_normalizer(normalizer: dict[int, Value], where: str) -> None:
    if normalizer.get(2):
        name = normalizer.get(1, b"")
        shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        raise InputError(f"{where}: a SentencePiece model that leaves text as it is (identity) is needed, got the rules {shown!r:.60}")
    if normalizer.get(4, 1):
        raise InputError(f"{where}: a SentencePiece model that keeps repeated blanks is needed (remove_extra_whitespaces is set)")
    if not normalizer.get(5, 1):
        raise InputError(f"{where}: a SentencePiece model that writes blanks as {SPACE} is needed (escape_whitespaces is off)")


def check_pieces(model: SentencePieceModel, where: str) -> None:
    """Every piece once and of a known type, scores that can be put in order, all bytes there, one unknown piece."""
    seen: dict[str, int] = {}
    for number, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True)):
        if piece in seen:
            raise InputError(f"{where}: piece {number} repeats piece {seen[piece]} ({piece!r:.60})")
        seen[piece] = number
        if kind not in (NORMAL, UNKNOWN, CONTROL, BYTE):
            named = TYPE_NAMES.get(kind, f"type {kind}")
            raise InputError(f"{where}: piece {number} ({piece!r:.60}) is {named}; normal, unknown, control and byte pieces are known")
        if kind == NORMAL and not piece:
            raise InputError(f"{where}: piece {number} is empty")
        if kind == NORMAL and not math.isfinite(model.scores[number]):
            raise InputError(f"{where}: piece {number} ({piece!r:.60}) has the score {model.scores[number]}; a finite number is needed")
    missing = [piece for piece in BYTE_PIECES if piece not in seen or model.types[seen[piece]] != BYTE]
    if missing:
        raise InputError(f"{where}: all 256 byte pieces are needed; {missing[0]} is missing ({len(missing)} in all)")
    if model.types.count(UNKNOWN) != 1:
        raise InputError(f"{where}: one unknown piece is needed, got {model.types.count(UNKNOWN)}")
