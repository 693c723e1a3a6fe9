"""The n-grams of a text by name, in plain Python: the same definition as `grams.py`, for the grams that a report shows."""

from collections.abc import Iterator

MASK = 2**64 - 1
OFFSET, PRIME, ODD, CHARACTERS = 0xCBF29CE484222325, 0x100000001B3, 0x9E3779B97F4A7C15, 0xA0761D6478BD642F
BLANK = b" "


def words_of(text: str) -> list[bytes]:
    """The words as they are hashed: UTF-8, small letters, digits as 0."""
    words: list[bytes] = []
    word = bytearray()

    def end() -> None:
        if word:
            words.append(bytes(word))
        word.clear()

    for character in text:
        code = ord(character)
        folded = b""
        if code < 0x80:
            if character.isdigit():
                folded = b"0"
            elif character.isalpha() or character == "_":
                folded = character.lower().encode()
        elif 0xC0 <= code <= 0xFF:
            if code not in (0xD7, 0xF7):
                folded = chr(code + 0x20 if code <= 0xDE else code).encode()
        elif 0x3040 <= code <= 0x9FFF or code > 0xFFFF:
            end()
            words.append(character.encode())
        elif not (code <= 0xBF or 0x2000 <= code <= 0x303F or 0xF000 <= code <= 0xFFFF):
            folded = character.encode("utf-8", "surrogatepass")
        if folded:
            word += folded
        else:
            end()
    end()
    return words


def finished(value: int) -> int:
    """The finishing mix of MurmurHash3."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & MASK
    return value ^ value >> 33


def byte_hash(data: bytes, start: int = OFFSET) -> int:
    """FNV-1a with the finishing mix."""
    for byte in data:
        start = (start ^ byte) * PRIME & MASK
    return finished(start)


def named_grams(text: str, bits: int, word_grams: int, characters: int) -> Iterator[tuple[int, str]]:
    """Every gram of a text, repeated ones too: its bucket and how a report writes it."""
    words = words_of(text)
    hashes = [byte_hash(word) for word in words]
    names = [word.decode("utf-8", "replace") for word in words]
    for place, value in enumerate(hashes):
        yield value >> 64 - bits, names[place]
        for after in range(place + 1, min(place + word_grams, len(words))):
            value = (value * ODD + hashes[after]) & MASK
            yield value >> 64 - bits, " ".join(names[place : after + 1])
    if characters:
        plain = BLANK + b"".join(word + BLANK for word in words)
        for place in range(len(plain) - characters + 1):
            run = plain[place : place + characters]
            yield byte_hash(run, CHARACTERS) >> 64 - bits, f"‹{run.decode('utf-8', 'replace')}›"
