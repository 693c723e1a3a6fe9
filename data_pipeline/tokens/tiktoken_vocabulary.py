"""Reads a tiktoken vocabulary: one line per token with its bytes in base64, a blank, its rank: id and merge order."""

import base64
import binascii
import re

from data_pipeline.errors import InputError

LINE = re.compile(rb"[A-Za-z0-9+/=]+ [0-9]+")
MOST_RANKS = 1 << 24  # a rank of more digits than this is a broken file, not a vocabulary


def looks_like_tiktoken(content: bytes) -> bool:
    """Whether the first line is `base64 rank`."""
    return LINE.fullmatch(content.split(b"\n", 1)[0].rstrip(b"\r")) is not None


def read_tiktoken(content: bytes, where: str) -> dict[bytes, int]:
    """Token bytes -> rank, the ranks 0, 1, ... without a gap; an InputError that names the line otherwise."""
    ranks: dict[bytes, int] = {}
    tokens: dict[int, int] = {}  # rank -> line
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        if LINE.fullmatch(line) is None:
            raise InputError(f"{where}, line {number}: a token in base64, a blank and a rank are needed, got {line[:60]!r}")
        encoded, rank_text = line.split()
        try:
            token = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise InputError(f"{where}, line {number}: not base64 ({encoded[:60].decode()}: {error})") from error
        if not token:
            raise InputError(f"{where}, line {number}: an empty token")
        rank = int(rank_text) if len(rank_text) < 10 else MOST_RANKS
        if rank >= MOST_RANKS:
            raise InputError(f"{where}, line {number}: a rank below {MOST_RANKS:,} is needed, got {rank_text[:20].decode()}")
        if rank in tokens:
            raise InputError(f"{where}, line {number}: rank {rank} is that of line {tokens[rank]} too")
        if token in ranks:
            raise InputError(f"{where}, line {number}: token {token!r:.60} has rank {ranks[token]} already")
        ranks[token], tokens[rank] = rank, number
    missing_bytes = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing_bytes:
        raise InputError(f"{where}: all 256 single bytes are needed; 0x{missing_bytes[0]:02X} is missing ({len(missing_bytes)} in all)")
    gap = next((rank for rank in range(len(ranks)) if rank not in tokens), None)
    if gap is not None:
        raise InputError(f"{where}: ranks must run from 0 to {len(ranks) - 1} without a gap; {gap} is missing")
    return ranks
