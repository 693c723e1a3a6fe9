"""A compiled table of n-gram hashes: a page's words in, the known n-grams on it out.

Hashes are those of `measures.ngram_hashes`, rolled over the page: (h - w[i-1] * ODD**(n-1)) * ODD + w[i+n-1] modulo 2**64. A long n-gram
can only stand where its first words are a known short one, so the long ones cost nothing on pages that hold no item.
"""

import numpy as np

from data_pipeline.web.compiled import compiled


@compiled
def place_of(value: np.uint64, bits: int) -> int:
    """The high bits of the mixed hash."""
    return np.int64((value * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(64 - bits))  # type: ignore[return-value]


@compiled
def insert(keys: np.ndarray, bits: int, table: np.ndarray, sieve: np.ndarray, sieve_bits: int) -> None:
    """Enters keys 0, 1, 2... into the table (int32 places, -1 where free, 2**bits of them) and the sieve (bits in uint64 words)."""
    mask = len(table) - 1
    for number in range(len(keys)):
        slot = place_of(keys[number], bits)
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = number
        bit = place_of(keys[number], sieve_bits)
        sieve[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)


@compiled
def find(value: np.uint64, keys: np.ndarray, bits: int, table: np.ndarray, sieve: np.ndarray, sieve_bits: int) -> int:
    """The number of the key, or -1."""
    bit = place_of(value, sieve_bits)
    if not (sieve[bit >> 6] >> np.uint64(bit & 63)) & np.uint64(1):
        return -1
    mask = len(table) - 1
    slot = place_of(value, bits)
    while table[slot] >= 0:
        if keys[table[slot]] == value:
            return table[slot]
        slot = (slot + 1) & mask
    return -1


@compiled
def scan(
    words: np.ndarray,
    short: int,
    long: int,
    keys: np.ndarray,
    bits: int,
    table: np.ndarray,
    sieve: np.ndarray,
    sieve_bits: int,
    grams: np.ndarray,
    places: np.ndarray,
) -> int:
    """Writes the number and the first word of every known n-gram on the page into `grams` and `places`; returns how many."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    shift = np.uint64(31)
    count = 0
    top = np.uint64(1)
    for _ in range(short - 1):
        top *= odd
    rolled = np.uint64(0)
    for place in range(len(words)):
        if place >= short:
            rolled -= words[place - short] * top
        rolled = rolled * odd + words[place]
        start = place - short + 1
        if start < 0:
            continue
        found = find(rolled ^ (rolled >> shift), keys, bits, table, sieve, sieve_bits)
        if found < 0:
            continue
        grams[count] = found
        places[count] = start
        count += 1
        if start + long <= len(words):
            whole = rolled
            for later in range(start + short, start + long):
                whole = whole * odd + words[later]
            found = find(whole ^ (whole >> shift), keys, bits, table, sieve, sieve_bits)
            if found >= 0:
                grams[count] = found
                places[count] = start
                count += 1
    return count
