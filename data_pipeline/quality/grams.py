"""Hashed n-grams straight from UTF-8 bytes: what the quality model sees of a text, and its weighted sum.

A word is a run of letters, digits and underscores; ASCII and Latin-1 capitals are made small and every digit counts as 0, so that a year
is one word whatever year it is. Punctuation, symbols and blanks part words; a Chinese or Japanese character, and a character beyond the
basic plane (an emoji), is a word of its own. Words are hashed by FNV-1a with a finishing mix (the 64-bit one of MurmurHash3), runs
of words by a polynomial of their words' hashes. A gram's bucket is the top bits of its hash. A bucket's
value is 1 + ln(count), and a text's values have length 1. `data_pipeline/quality/gram_names.py` says the same in plain Python; a test
holds the two together.
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
LANES = 8  # outputs of one bucket, so that its weights lie in one line of the processor's cache
ONE, HALF, LOW, FIVE, BITS = np.uint64(1), np.uint64(32), np.uint64(2**32 - 1), np.uint64(5), np.uint64(31)


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
def beyond_ascii(data, place):  # type: ignore[no-untyped-def]
    """Of a byte beyond ASCII: how many go together, the second small, and whether they belong to a word or are one."""
    first, second = data[place], np.uint8(0)
    if first == 0xC2:
        return 2, second, False, False
    if first == 0xE2 or first == 0xEF:
        return 3, second, False, False
    if first == 0xC3:
        second = data[place + 1]
        if second == 0x97 or second == 0xB7:
            return 2, second, False, False
        if second <= 0x9E:
            second = np.uint8(second + 0x20)
        return 2, second, True, False
    if 0xE3 <= first <= 0xE9:
        return 3, second, False, not (first == 0xE3 and data[place + 1] == 0x80)
    if first >= 0xF0:
        return 4, second, False, True
    return 1, second, True, False


@compiled
def end_word(value, hashes, words, plain, written, keep_plain):  # type: ignore[no-untyped-def]
    hashes[words] = mixed(value)
    if keep_plain:
        plain[written] = BLANK
        written += 1
    return words + 1, written


@compiled
def read_words(text, hashes, plain, keep_plain):  # type: ignore[no-untyped-def]
    """Writes each word's hash to `hashes` and, where asked, the words with blanks around them to `plain`; how many of both.

    The text's last byte is one that parts words.
    """
    words, written, skipped, value = 0, 0, 0, OFFSET
    if keep_plain:
        plain[0] = BLANK
        written = 1
    for place in range(len(text)):
        first = text[place]
        if first < 0x80:
            folded = FOLDED[first]
            if folded:
                value = (value ^ np.uint64(folded)) * PRIME
                if keep_plain:
                    plain[written] = folded
                    written += 1
            elif value != OFFSET:
                words, written = end_word(value, hashes, words, plain, written, keep_plain)
                value = OFFSET
            continue
        if skipped:  # seen together with the byte before
            skipped -= 1
            continue
        size, second, belongs, alone = beyond_ascii(text, place)
        skipped = size - 1
        if belongs:
            for number in range(size):
                byte = second if number else first
                value = (value ^ np.uint64(byte)) * PRIME
                if keep_plain:
                    plain[written] = byte
                    written += 1
        elif value != OFFSET:
            words, written = end_word(value, hashes, words, plain, written, keep_plain)
            value = OFFSET
        if alone:
            for byte in text[place : place + size]:
                value = (value ^ np.uint64(byte)) * PRIME
                if keep_plain:
                    plain[written] = byte
                    written += 1
            words, written = end_word(value, hashes, words, plain, written, keep_plain)
            value = OFFSET
    return words, written


@compiled
def count(bucket, mask, table, slots, used):  # type: ignore[no-untyped-def]
    """One more of a bucket in the open table, whose entries are (bucket + 1) * 2**32 + count; `slots` lists those in use.

    Whether a bucket is new is no branch here, since no processor can foresee it; the table is so empty that the one branch is foreseen.
    """
    slot, name = bucket & mask, bucket + ONE
    entry = table[slot]
    while (entry != 0) & (entry >> HALF != name):
        slot = (slot + ONE) & mask
        entry = table[slot]
    table[slot] = (name << HALF) + (entry & LOW) + ONE
    slots[used] = slot
    return used + (entry == 0)


@compiled
def count_grams(hashes, words, plain, written, bits, word_grams, characters, mask, table, slots):  # type: ignore[no-untyped-def]
    """Counts the buckets of all runs of 1..word_grams words and, where `characters` is not 0, of so many bytes of `plain`."""
    shift, used = np.uint64(64 - bits), 0
    for place in range(words):
        value = hashes[place]
        used = count(value >> shift, mask, table, slots, used)
        for after in range(place + 1, min(place + word_grams, words)):
            value = value * ODD + hashes[after]
            used = count(value >> shift, mask, table, slots, used)
    if characters:
        for place in range(written - characters + 1):
            value = CHARACTERS
            for byte in plain[place : place + characters]:
                value = (value ^ np.uint64(byte)) * PRIME
            used = count(mixed(value) >> shift, mask, table, slots, used)
    return used


@compiled
def table_size(entries):  # type: ignore[no-untyped-def]
    """A power of two at least four times as large."""
    size = 16
    while size < 4 * entries:
        size *= 2
    return size


@compiled
def ones(bits):  # type: ignore[no-untyped-def]
    """How many of 32 bits are set, by adding neighbours (Warren, Hacker's Delight, 5-1)."""
    bits -= (bits >> ONE) & np.uint64(0x55555555)
    bits = (bits & np.uint64(0x33333333)) + ((bits >> np.uint64(2)) & np.uint64(0x33333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F)
    return ((bits * np.uint64(0x01010101)) >> np.uint64(24)) & np.uint64(0xFF)


@compiled
def grams_of(data, ends, bits, word_grams, characters, weights, marks, indptr, indices, values, sums):  # type: ignore[no-untyped-def]
    """Every text's buckets and values into a sparse matrix, or where `weights` has rows, only their weighted sums into `sums`.

    data: uint8, all texts, a zero after each; ends: int64 [texts], where the zeros are. weights: float32 [weighted buckets, LANES]; marks:
    uint64 [2**bits / 32], or empty for a sparse matrix: the low half has a bit for each bucket with weights, which most n-grams of the
    web have not, the high half the number of such buckets before. indptr: int64 [texts + 1]; indices: int32 and values: float32, long
    enough for all; sums: float64 [texts, LANES].
    """
    longest, start = 0, 0
    for end in ends:
        longest, start = max(longest, end - start), end + 1
    room = longest // 2 + 2
    hashes = np.empty(room, np.uint64)
    plain = np.empty(2 * longest + 4 if characters else 1, np.uint8)
    most = room * word_grams + (2 * longest + 4 if characters else 0)
    table, slots = np.zeros(table_size(most), np.uint64), np.empty(most + 1, np.uint64)
    summed = np.zeros(LANES, np.float64)
    start, filled = 0, 0
    for text in range(len(ends)):
        words, written = read_words(data[start : ends[text] + 1], hashes, plain, characters > 0)
        start = ends[text] + 1
        mask = np.uint64(table_size(words * word_grams + (written if characters else 0)) - 1)
        used = count_grams(hashes, words, plain, written, bits, word_grams, characters, mask, table, slots)
        squares, begin = 0.0, filled
        summed[:] = 0.0
        for slot in slots[:used]:
            entry = table[slot]
            table[slot] = 0  # empty for the next text
            bucket, times = (entry >> HALF) - ONE, np.uint32(entry)
            value = LOGS[times] if times < 256 else 1.0 + np.log(times)
            squares += value * value
            if len(marks):
                mark, bit = marks[bucket >> FIVE], bucket & BITS
                if (mark >> bit) & ONE:
                    row = (mark >> HALF) + ones(mark & ((ONE << bit) - ONE))
                    for lane in range(LANES):
                        summed[lane] += value * weights[row, lane]
            else:
                indices[filled], values[filled] = bucket, value
                filled += 1
        scale = 1.0 / np.sqrt(squares) if used else 0.0
        if len(marks):
            for lane in range(LANES):
                sums[text, lane] = summed[lane] * scale
        for place in range(begin, filled):
            values[place] *= scale
        indptr[text + 1] = filled


def joined(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The texts' UTF-8 bytes, a zero after each, and the int64 places of these zeros; half surrogates are taken as they are."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(one) + 1 for one in encoded], dtype=np.int64) - 1
    return np.frombuffer(b"\0".join([*encoded, b""]), np.uint8), ends


def sparse_rows(texts: list[str], bits: int, word_grams: int, characters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts as the rows of a sparse matrix with 2**bits columns: indptr int64, indices int32, values float32.

    Within a row the buckets stand in the order in which the text first has them.
    """
    data, ends = joined(texts)
    room = word_grams * (len(data) // 2 + 2 * len(texts)) + (2 * len(data) + 4 * len(texts) if characters else 0)
    indptr, indices, values = np.zeros(len(texts) + 1, np.int64), np.empty(room, np.int32), np.empty(room, np.float32)
    nothing = np.empty((0, LANES), np.float32), np.empty(0, np.uint64)
    grams_of(data, ends, bits, word_grams, characters, *nothing, indptr, indices, values, np.empty((0, LANES)))
    return indptr, indices[: indptr[-1]].copy(), values[: indptr[-1]].copy()


def marks_of(columns: np.ndarray, bits: int) -> np.ndarray:
    """Where the weights of a bucket are, for `weighted_sums`: uint64 [2**bits / 32] from the rising buckets with weights, uint32."""
    has = np.zeros(2**bits, bool)
    has[columns] = True
    low = np.packbits(has, bitorder="little").view("<u4").astype(np.uint64)
    per_mark = has.reshape(-1, 32).sum(axis=1).astype(np.uint64)
    return ((np.cumsum(per_mark, dtype=np.uint64) - per_mark) << HALF) | low


def weighted_sums(texts: list[str], bits: int, word_grams: int, characters: int, weights: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """float64 [texts, LANES]: each text's values times the float32 weights [columns, LANES] of the buckets that `marks_of` was given."""
    data, ends = joined(texts)
    sums = np.zeros((len(texts), LANES))
    nothing = np.empty(0, np.int32), np.empty(0, np.float32)
    grams_of(data, ends, bits, word_grams, characters, weights, marks, np.zeros(len(texts) + 1, np.int64), *nothing, sums)
    return sums
