"""Small vocabularies made on the spot: a SentencePiece file written by hand, byte ranks learnt from a few lines, and texts to try."""

import base64
import random
import struct
from collections import Counter
from itertools import pairwise

CORPUS = [
    "The quick brown fox doesn't jump over 12345 lazy dogs; it naps.",
    "  def add(a, b):\n\treturn a + b  # naïve\r\n\r\n",
    "Straße, Ærø, naïveté: 東京 東京 こんにちは こんにちは 한국어 \U0001f642 \U0001f642",
    "IT'S we'll they've     I'm\u00a0here\n\n\n   again and again",
]
TEXTS = [
    *CORPUS,
    "",
    " ",
    "  ",
    " leading",
    "two  spaces   three",
    " " * 37,
    "\n",
    "a\nb\n\nc \n d",
    "\r\n\t",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "日本語のテキスト",
    "\0\x01\x7f",
    "\u2581 low block",
    "<s></s><unk><0x0A>",
    "<|user|>\nhi<|end|>",
    "e\u0301 \ufb03 \u212b",
]


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text: str, score: float, kind: int) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))


def sentencepiece_file(
    pieces: list[tuple[str, float]], model_type: int = 2, byte_fallback: int = 1, extra_blanks: int = 0, rules: bytes = b"", skip: int = -1
) -> bytes:
    """A model of <unk>, <s>, </s>, the 256 bytes (but `skip`) and the normal pieces, in that order."""
    content = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3)
    content += b"".join(piece(f"<0x{byte:02X}>", 0, 6) for byte in range(256) if byte != skip)
    content += b"".join(piece(text, score, 1) for text, score in pieces)
    content += field(2, field(3, model_type) + field(35, byte_fallback))
    return content + field(3, field(1, b"rules") + (field(2, rules) if rules else b"") + field(3, 1) + field(4, extra_blanks))


def learnt_ranks(merges: int, seed: int = 0) -> dict[bytes, int]:
    """Byte-level BPE of up to `merges` entries of at most 8 bytes, learnt from uncut text, so that entries span blanks too.

    The bytes are in random order, as in OpenAI's files they are not 0 to 255 either.
    """
    order = list(range(256))
    random.Random(seed).shuffle(order)
    ranks = {bytes([byte]): rank for rank, byte in enumerate(order)}
    rows = [[bytes([byte]) for byte in text.encode()] for text in CORPUS]
    while len(ranks) < 256 + merges:
        pairs = (pair for row in rows for pair in pairwise(row) if len(pair[0] + pair[1]) <= 8)
        counts = Counter(pair for pair in pairs if pair[0] + pair[1] not in ranks)
        if not counts:
            break
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        ranks[left + right] = len(ranks)
        for row in rows:
            at = 0
            while at < len(row) - 1:
                if row[at] + row[at + 1] == left + right:
                    row[at : at + 2] = [left + right]
                at += 1
    return ranks


def tiktoken_file(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Words and blanks of the corpus, mixed with characters from everywhere but surrogates."""
    rng = random.Random(seed)
    ranges = [(1, 0x7F), (1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1F9FF)]
    words = " ".join(CORPUS).split()
    blanks = [" ", "  ", "\n", "\r\n", "\t", "   \n", "\u3000", "\u2581"]
    return [
        "".join(
            rng.choice([rng.choice(words), rng.choice(blanks), " " * rng.randint(1, 40), chr(rng.randint(*rng.choice(ranges)))])
            for _ in range(rng.randint(0, 30))
        )
        for _ in range(count)
    ]
