"""The compiled loops behind signatures and clusters. Everything that they call is in this file (see data_pipeline/web/compiled.py)."""

import numpy as np

from data_pipeline.web.compiled import compiled

MERSENNE_61 = np.uint64((1 << 61) - 1)
LOW_32 = np.uint64(0xFFFFFFFF)


@compiled
def least_multiply_shift(shingles, multipliers, offsets, least):  # type: ignore[no-untyped-def]
    """least[p] = min over shingles of the upper half of h * a[p] + b[p] modulo 2**64; least is uint32 and holds the minimum so far."""
    half = np.uint64(32)
    for place in range(len(multipliers)):
        multiplier, offset = multipliers[place], offsets[place]
        smallest = least[place]
        for one in range(len(shingles)):
            smallest = min(smallest, np.uint32((shingles[one] * multiplier + offset) >> half))
        least[place] = smallest


@compiled
def least_mersenne(shingles, multipliers, offsets, low_half, least):  # type: ignore[no-untyped-def]
    """least[p] = min over shingles of ((h * a[p] + b[p]) modulo 2**64) modulo 2**61 - 1, halved where `low_half`; least is uint64."""
    shift = np.uint64(61)
    for place in range(len(multipliers)):
        multiplier, offset = multipliers[place], offsets[place]
        smallest = least[place]
        for one in range(len(shingles)):
            permuted = shingles[one] * multiplier + offset
            permuted = (permuted & MERSENNE_61) + (permuted >> shift)
            if permuted >= MERSENNE_61:
                permuted -= MERSENNE_61
            if low_half:
                permuted &= LOW_32
            smallest = min(smallest, permuted)
        least[place] = smallest


@compiled
def mixed(value):  # type: ignore[no-untyped-def]
    """A bijection of 64-bit numbers in which each bit of the argument reaches each bit of the result (the finaliser of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def band_keys(signatures, bands, rows, keys):  # type: ignore[no-untyped-def]
    """keys[band, document]: 64 bits of each band's values; `signatures` is uint32 [documents, bands * rows]."""
    for document in range(len(signatures)):
        for band in range(bands):
            key = np.uint64(0x9E3779B97F4A7C15)
            for place in range(band * rows, (band + 1) * rows):
                key = mixed(key ^ np.uint64(signatures[document, place])) + np.uint64(0x9E3779B97F4A7C15)
            keys[band, document] = key


@compiled
def mix_in(keys, numbers):  # type: ignore[no-untyped-def]
    """keys[i] becomes a mixture of itself and numbers[i]."""
    for one in range(len(keys)):
        keys[one] = mixed(keys[one] ^ mixed(np.uint64(numbers[one]) + np.uint64(0x9E3779B97F4A7C15)))


@compiled
def root(parent, place):  # type: ignore[no-untyped-def]
    """The first document of a cluster, with the way to it halved."""
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


@compiled
def flatten(parent):  # type: ignore[no-untyped-def]
    """parent[i] becomes the root of i."""
    for place in range(len(parent)):
        parent[place] = root(parent, place)


@compiled
def join(parent, one, other):  # type: ignore[no-untyped-def]
    """Joins two clusters under the earlier document."""
    first, second = root(parent, one), root(parent, other)
    if first < second:
        parent[second] = first
    else:
        parent[first] = second


@compiled
def leave_out_joined(keys, documents, parent, alone):  # type: ignore[no-untyped-def]
    """Marks the groups of equal keys as alone whose documents are all in one cluster by now: nothing can come of them any more.

    The first and the last group stay, since they may go on beyond this stretch of records.
    """
    start = 0
    for stop in range(1, len(keys)):
        if keys[stop] == keys[start]:
            continue
        if start > 0 and stop - start > 1:
            first = root(parent, documents[start])
            joined = True
            for one in range(start + 1, stop):
                if root(parent, documents[one]) != first:
                    joined = False
                    break
            if joined:
                alone[start:stop] = True
        start = stop


@compiled
def joins(one, other, start, stop, needed):  # type: ignore[no-untyped-def]
    """Whether two signatures agree in all places from start to stop and in `needed` places altogether."""
    for place in range(start, stop):
        if one[place] != other[place]:
            return False
    equal = 0
    for place in range(len(one)):
        equal += one[place] == other[place]
    return equal >= needed


@compiled
def join_groups(keys, documents, where, rows, start, stop, needed, parent, open_key, open_count, leaders, leader_rows):  # type: ignore[no-untyped-def]
    """One stretch of a band's (key, document) records, sorted: each record joins the first similar leader of its key, or becomes one.

    rows[where[i]] is record i's signature; where[i] < 0 says that it stands alone. The group that is open at the stretch's end stays in
    open_key [1], open_count [1] (leaders so far; -1 before the first record), leaders [most] and leader_rows [most, places]. Returns how
    many comparisons were made.
    """
    count = open_count[0]
    compared = 0
    for one in range(len(keys)):
        if count < 0 or keys[one] != open_key[0]:
            open_key[0], count = keys[one], 0
        if where[one] < 0:
            continue
        row = rows[where[one]]
        found = False
        for leader in range(count):
            compared += 1
            if joins(leader_rows[leader], row, start, stop, needed):
                join(parent, leaders[leader], documents[one])
                found = True
                break
        if not found and count < len(leaders):
            leaders[count] = documents[one]
            leader_rows[count] = row
            count += 1
    open_count[0] = count
    return compared
