"""Hashed n-grams straight from UTF-8 bytes: what the quality model sees of a text, and its weighted sum.

A word is a run of letters, digits and underscores; ASCII and Latin-1 capitals are made small and every digit counts as 0, so that a year
is one word whatever year it is. Punctuation, symbols and blanks part words; a Chinese or Japanese character, and a character beyond the
basic plane (an emoji), is a word of its own. Words are hashed by FNV-1a with a finishing mix (the 64-bit one of MurmurHash3), runs of
1..n words by a polynomial of their words' hashes; a gram's bucket is the top bits of its hash. A bucket's value is 1 + ln(count), and a
text's values have length 1. `data_pipeline/quality/gram_names.py` says the same in plain Python; a test holds the two together.
"""

import numpy as np

from data_pipeline.web.compiled import compiled

VERSION = 1  # of the definition above; a model made under another one is refused

OFFSET = np.uint64(0xCBF29CE484222325)
PRIME = np.uint64(0x100000001B3)
ODD = np.uint64(0x9E3779B97F4A7C15)
CHARACTERS = np.uint64(0xA0761D6478BD642F)  # where the hash of a run of characters begins, so that it is no word's
MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
BLANK = 32


def folded_bytes() -> np.ndarray:
    """What each ASCII byte counts as, 0 for one that parts words; uint8 [128]."""
    table = np.zeros(128, np.uint8)
    for byte in range(128):
        character = chr(byte)
        if character.isdigit():
            table[byte] = ord("0")
        elif character.isalpha() or character == "_":
            table[byte] = ord(character.lower())
    return table


FOLDED = folded_bytes()
LOGS = np.concatenate([[0.0], 1.0 + np.log(np.arange(1, 256))])  # 1 + ln(count) of small counts


@compiled
def mixed(value):  # type: ignore[no-untyped-def]
    value ^= value >> SHIFT
    value *= MIX_1
    value ^= value >> SHIFT
    value *= MIX_2
    return value ^ (value >> SHIFT)


@compiled
def read_words(data, start, end, hashes, plain, keep_plain):  # type: ignore[no-untyped-def]
    """Writes each word's hash to `hashes` and, where asked, the words with blanks around them to `plain`; how many of both."""
    words, written, length, place = 0, 0, 0, start
    value = OFFSET
    if keep_plain:
        plain[0] = BLANK
        written = 1
    while place <= end:
        # `size` bytes are looked at; they part words (parts), or are a word alone (alone), or belong to the word.
        parts, alone, size = True, False, 1
        first, second = np.uint8(0), np.uint8(0)
        if place < end:
            first = data[place]
            if first < 0x80:
                first = FOLDED[first]
                parts = first == 0
            elif first == 0xC2 or first == 0xE2 or first == 0xEF:
                size = 2 if first == 0xC2 else 3
            elif first == 0xC3:
                second, size = data[place + 1], 2
                parts = second == 0x97 or second == 0xB7
                if second <= 0x9E:
                    second += np.uint8(0x20)
            elif 0xE3 <= first <= 0xE9:
                size = 3
                alone = not (first == 0xE3 and data[place + 1] == 0x80)
            elif first >= 0xF0:
                size, alone = 4, True
            else:
                parts = False
        if not parts:
            value = (value ^ np.uint64(first)) * PRIME
            length += 1
            if keep_plain:
                plain[written] = first
                written += 1
            if size == 2:
                value = (value ^ np.uint64(second)) * PRIME
                if keep_plain:
                    plain[written] = second
                    written += 1
        else:
            if length:
                hashes[words] = mixed(value)
                words += 1
                if keep_plain:
                    plain[written] = BLANK
                    written += 1
            value, length = OFFSET, 0
            if alone:
                for byte in data[place : place + size]:
                    value = (value ^ np.uint64(byte)) * PRIME
                    if keep_plain:
                        plain[written] = byte
                        written += 1
                hashes[words] = mixed(value)
                words += 1
                value = OFFSET
                if keep_plain:
                    plain[written] = BLANK
                    written += 1
        place += size
    return words, written


@compiled
def count(bucket, mask, stamp, keys, stamps, counts, slots, used):  # type: ignore[no-untyped-def]
    """One more of a bucket in the open table; entries of another stamp are empty ones."""
    slot = (bucket * np.uint64(0x9E3779B1)) & mask
    while stamps[slot] == stamp:
        if keys[slot] == bucket:
            counts[slot] += 1
            return used
        slot = (slot + np.uint64(1)) & mask
    stamps[slot], keys[slot], counts[slot] = stamp, bucket, 1
    slots[used] = slot
    return used + 1


@compiled
def count_grams(hashes, words, plain, written, bits, word_grams, characters, mask, stamp, keys, stamps, counts, slots):  # type: ignore[no-untyped-def]
    """Counts the buckets of all runs of 1..word_grams words and, where `characters` is not 0, of so many bytes of `plain`."""
    shift, used = np.uint64(64 - bits), 0
    for place in range(words):
        used = count(hashes[place] >> shift, mask, stamp, keys, stamps, counts, slots, used)
        value = hashes[place]
        for after in range(place + 1, min(place + word_grams, words)):
            value = value * ODD + hashes[after]
            used = count(mixed(value) >> shift, mask, stamp, keys, stamps, counts, slots, used)
    if characters:
        for place in range(written - characters + 1):
            value = CHARACTERS
            for byte in plain[place : place + characters]:
                value = (value ^ np.uint64(byte)) * PRIME
            used = count(mixed(value) >> shift, mask, stamp, keys, stamps, counts, slots, used)
    return used


@compiled
def grams_of(data, ends, bits, word_grams, characters, weights, indptr, indices, values, sums):  # type: ignore[no-untyped-def]
    """Every text's buckets and values into a sparse matrix, or where `weights` has rows, only their weighted sums into `sums`.

    data: uint8, all texts joined; ends: int64 [texts], where each ends. weights: float32 [2**bits or 0, outputs]. indptr: int64
    [texts + 1]; indices: int32 and values: float32, long enough for all; sums: float64 [texts, outputs].
    """
    longest, start = 0, 0
    for end in ends:
        longest, start = max(longest, end - start), end
    room = longest // 2 + 2
    hashes = np.empty(room, np.uint64)
    plain = np.empty(2 * longest + 4 if characters else 1, np.uint8)
    most = room * word_grams + (2 * longest + 4 if characters else 0)
    size = 16
    while size < 2 * most:
        size *= 2
    keys, counts, stamps = np.empty(size, np.uint32), np.empty(size, np.int32), np.zeros(size, np.int64)
    slots = np.empty(most, np.int64)
    outputs, start, filled = weights.shape[1], 0, 0
    for text in range(len(ends)):
        words, written = read_words(data, start, ends[text], hashes, plain, characters > 0)
        start = ends[text]
        wanted = 2 * (words * word_grams + (written if characters else 0))
        size = 16
        while size < wanted:
            size *= 2
        used = count_grams(
            hashes, words, plain, written, bits, word_grams, characters, np.uint64(size - 1), text + 1, keys, stamps, counts, slots
        )
        squares = 0.0
        for place in range(used):
            times = counts[slots[place]]
            value = LOGS[times] if times < 256 else 1.0 + np.log(times)
            squares += value * value
        scale = 1.0 / np.sqrt(squares) if used else 0.0
        for place in range(used):
            slot = slots[place]
            times = counts[slot]
            value = (LOGS[times] if times < 256 else 1.0 + np.log(times)) * scale
            if len(weights):
                row = keys[slot]
                for output in range(outputs):
                    sums[text, output] += value * weights[row, output]
            else:
                indices[filled], values[filled] = keys[slot], value
                filled += 1
        indptr[text + 1] = filled


def joined(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The texts' UTF-8 bytes one after the other, and the int64 place where each ends; half surrogates are taken as they are."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded], dtype=np.int64)


def sparse_rows(texts: list[str], bits: int, word_grams: int, characters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts as the rows of a sparse matrix with 2**bits columns: indptr int64, indices int32, values float32.

    Within a row the buckets stand in the order in which the text first has them.
    """
    data, ends = joined(texts)
    room = word_grams * (len(data) // 2 + 2 * len(texts)) + (2 * len(data) + 4 * len(texts) if characters else 0)
    indptr, indices, values = np.zeros(len(texts) + 1, np.int64), np.empty(room, np.int32), np.empty(room, np.float32)
    none = np.empty((0, 1), np.float32)
    grams_of(data, ends, bits, word_grams, characters, none, indptr, indices, values, np.empty((0, 1)))
    return indptr, indices[: indptr[-1]].copy(), values[: indptr[-1]].copy()


def weighted_sums(texts: list[str], bits: int, word_grams: int, characters: int, weights: np.ndarray) -> np.ndarray:
    """float64 [texts, outputs]: each text's values times the float32 weights [2**bits, outputs]."""
    data, ends = joined(texts)
    sums = np.zeros((len(texts), weights.shape[1]))
    nothing = np.empty(0, np.int32), np.empty(0, np.float32)
    grams_of(data, ends, bits, word_grams, characters, weights, np.zeros(len(texts) + 1, np.int64), *nothing, sums)
    return sums
