"""What the classifier is told of each block: itself, its neighbours, the elements around it, the page; and the trees that judge it.

Compiled, and by itself: it calls nothing of other files. The columns of blocks are those of `layout`.
"""

# ruff: noqa: SIM109, I001
import numpy as np

from data_pipeline.web.compiled import compiled, inner
from data_pipeline.web.extraction.layout import (
    B_ALL, B_CONTEXT, B_NEAR, B_OWN, B_TEXT, BOLD, BREAKS, C_DEPTH, C_TAG, CAPITALS, CHARS, COMMAS, DD, DIGITS, DIV, DT, END, GREAT, H1, H6,
    IMAGES, ITEM, LI, LINK_CHARS, LINK_WORDS, LINKS, LIST_DEPTH, OWN, P, PRE, ROW, SENTENCES, STOPS, TABLE, TD, TH, WORDS,
)  # fmt: skip

CONTEXT_BITS, CLASS_BITS, TEXT_BITS = 29, 44, 30
ITSELF, AROUND, PAGE, NEIGHBOURS, TRAIL = 32, 4 * 7, 10, 6 * 7, 22
FEATURES = ITSELF + AROUND + PAGE + NEIGHBOURS + TRAIL + CONTEXT_BITS + CLASS_BITS + TEXT_BITS
LEVELS = GREAT - OWN + 1
PARTS, DIGEST = ("vocabulary.py", "layout.py"), "e0be9479e8d1"  # as in page_scan
LONG_WORDS = 20  # a block of so many words outside links is taken for prose by the distances


@inner
def log(value):  # type: ignore[no-untyped-def]
    return np.log1p(np.float32(value))


@inner
def share(part, whole):  # type: ignore[no-untyped-def]
    return np.float32(part) / np.float32(max(whole, 1))


@inner
def is_heading(tag):  # type: ignore[no-untyped-def]
    return H1 <= tag <= H6


@inner
def is_prose(blocks, i):  # type: ignore[no-untyped-def]
    words = blocks[i, WORDS] - blocks[i, LINK_WORDS]
    return words >= LONG_WORDS and blocks[i, STOPS] * 6 >= words and blocks[i, LINK_CHARS] * 3 < blocks[i, CHARS]


@inner
def itself(text, blocks, i, row, at):  # type: ignore[no-untyped-def]
    """The block's element, size and style."""
    tag, chars, words = blocks[i, C_TAG], blocks[i, CHARS], blocks[i, WORDS]
    row[at] = tag == P
    row[at + 1] = tag - H1 + 1 if is_heading(tag) else 0
    row[at + 2] = tag == LI
    row[at + 3] = tag == TD or tag == TH
    row[at + 4] = tag == DIV
    row[at + 5] = tag == PRE
    row[at + 6] = tag == DD or tag == DT
    row[at + 7] = tag
    row[at + 8] = blocks[i, C_DEPTH]
    row[at + 9] = log(chars)
    row[at + 10] = log(words)
    row[at + 11] = share(blocks[i, LINK_CHARS], chars)
    row[at + 12] = log(chars - blocks[i, LINK_CHARS])
    row[at + 13] = share(blocks[i, STOPS], words)
    row[at + 14] = blocks[i, STOPS]
    row[at + 15] = blocks[i, SENTENCES]
    row[at + 16] = share(blocks[i, COMMAS], words)
    row[at + 17] = share(blocks[i, DIGITS], chars)
    row[at + 18] = share(blocks[i, CAPITALS], words)
    row[at + 19] = blocks[i, LINKS]
    row[at + 20] = share(blocks[i, BOLD], chars)
    row[at + 21] = blocks[i, BREAKS]
    row[at + 22] = blocks[i, IMAGES]
    row[at + 23] = share(chars, words)
    row[at + 24] = blocks[i, LIST_DEPTH]
    row[at + 25] = blocks[i, ROW] > 0
    row[at + 26] = blocks[i, ITEM] > 0
    row[at + 27] = blocks[i, TABLE] > 0
    last, first = text[blocks[i, END] - 1], text[blocks[i, 0]]
    row[at + 28] = 1 if last == 46 or last == 33 or last == 63 else 2 if last == 58 else 3 if last >= 128 else 0
    row[at + 29] = 1 if 65 <= first <= 90 else 2 if 97 <= first <= 122 else 3 if 48 <= first <= 57 else 4 if first >= 128 else 0
    row[at + 30] = blocks[i, LINK_WORDS]
    row[at + 31] = share(blocks[i, SENTENCES], words)


@inner
def container_sums(blocks, count):  # type: ignore[no-untyped-def]
    """Per element around blocks: blocks, characters, link characters, words, stop words, sentences, prose blocks."""
    sums = np.zeros((count + 1, 7), np.float32)
    for i in range(len(blocks)):
        before = -1
        for level in range(LEVELS):
            one = blocks[i, OWN + level]
            if one == before:
                break
            before = one
            sums[one, 0] += 1
            sums[one, 1] += blocks[i, CHARS]
            sums[one, 2] += blocks[i, LINK_CHARS]
            sums[one, 3] += blocks[i, WORDS]
            sums[one, 4] += blocks[i, STOPS]
            sums[one, 5] += blocks[i, SENTENCES]
            sums[one, 6] += is_prose(blocks, i)
    return sums


@inner
def around(blocks, i, sums, total, row, at):  # type: ignore[no-untyped-def]
    """The elements around the block, by what they hold."""
    for level in range(LEVELS):
        one, place = blocks[i, OWN + level], at + 7 * level
        row[place] = log(sums[one, 0])
        row[place + 1] = log(sums[one, 1])
        row[place + 2] = share(sums[one, 2], sums[one, 1])
        row[place + 3] = share(sums[one, 4], sums[one, 3])
        row[place + 4] = sums[one, 5] / max(sums[one, 0], np.float32(1))
        row[place + 5] = log(sums[one, 6])
        row[place + 6] = share(sums[one, 1], total)


@inner
def neighbours(blocks, i, row, at):  # type: ignore[no-untyped-def]
    """Three blocks before and three behind."""
    n = len(blocks)
    for offset in range(6):
        j = i + (offset - 3 if offset < 3 else offset - 2)
        place = at + 7 * offset
        if j < 0 or j >= n:
            for column in range(7):
                row[place + column] = -1
            continue
        row[place] = log(blocks[j, CHARS])
        row[place + 1] = share(blocks[j, LINK_CHARS], blocks[j, CHARS])
        row[place + 2] = share(blocks[j, STOPS], blocks[j, WORDS])
        row[place + 3] = blocks[j, SENTENCES]
        row[place + 4] = blocks[j, C_TAG]
        row[place + 5] = blocks[j, C_DEPTH] - blocks[i, C_DEPTH]
        row[place + 6] = 0
        for level in range(LEVELS - 1, -1, -1):
            if blocks[j, OWN + level] == blocks[i, OWN + level]:
                row[place + 6] = LEVELS - level


@inner
def page_values(blocks, state, row, at):  # type: ignore[no-untyped-def]
    """What is the same for all blocks of a page."""
    n, prose, prose_words = len(blocks), 0, 0
    for i in range(n):
        if is_prose(blocks, i):
            prose += 1
            prose_words += blocks[i, WORDS]
    row[at] = log(n)
    row[at + 1] = log(state[0])
    row[at + 2] = share(state[1], state[0])
    row[at + 3] = share(state[2], state[0])
    row[at + 4] = prose
    row[at + 5] = log(prose_words)
    row[at + 6] = share(prose, n)


@inner
def flags(bits, i, row, at):  # type: ignore[no-untyped-def]
    """Contexts; class words, 3 in the element itself, 2 near it, 1 around it; words of the text."""
    for bit in range(CONTEXT_BITS):
        row[at + bit] = bits[i, B_CONTEXT] >> bit & 1
    at += CONTEXT_BITS
    for bit in range(CLASS_BITS):
        own, near, all_of = bits[i, B_OWN] >> bit & 1, bits[i, B_NEAR] >> bit & 1, bits[i, B_ALL] >> bit & 1
        row[at + bit] = 3 if own else 2 if near else all_of
    at += CLASS_BITS
    for bit in range(TEXT_BITS):
        row[at + bit] = bits[i, B_TEXT] >> bit & 1


@inner
def trails(blocks, bits, out, at):  # type: ignore[no-untyped-def]
    """What came before and what comes behind, near and far: distances, shares, decaying sums, the last heading."""
    n = len(blocks)
    prose_total, total = np.float32(1), np.float32(1)
    for i in range(n):
        total += blocks[i, CHARS]
        prose_total += blocks[i, CHARS] if is_prose(blocks, i) else 0
    for backward in range(2):
        seen, prose, near, near_links, distance, breadth = np.float32(0), np.float32(0), np.float32(0), np.float32(0), 50, 500
        heading, heading_bits, first = 0, np.int64(0), 0
        for turn in range(n):
            i = n - 1 - turn if backward else turn
            row, place = out[i], at + 10 * backward
            row[place] = seen / total
            row[place + 1] = prose / prose_total
            row[place + 2] = log(near)
            row[place + 3] = near_links / (near + 1)
            row[place + 4] = distance
            row[place + 5] = min(turn, 500)
            row[place + 6] = breadth
            row[place + 7] = min(heading, 50)
            row[place + 8] = first
            if not backward:
                row[at + 20] = heading_bits & 0x8FFF
                row[at + 21] = min(i, 500)
            seen += blocks[i, CHARS]
            near = near * np.float32(0.7) + blocks[i, CHARS] - blocks[i, LINK_CHARS]
            near_links = near_links * np.float32(0.7) + blocks[i, LINK_CHARS]
            distance = min(distance + 1, 50)
            breadth = min(breadth + blocks[i, WORDS], 500)
            heading += 1
            if is_prose(blocks, i):
                prose += blocks[i, CHARS]
                distance, breadth = 0, 0
            if is_heading(blocks[i, C_TAG]):
                heading, heading_bits = 0, bits[i, B_TEXT]
                if blocks[i, C_TAG] == H1:
                    first += 1


@compiled
def features(text, blocks, bits, state, containers):  # type: ignore[no-untyped-def]
    """The features of every block: float32 [blocks, FEATURES]. `state`: characters of the page, in links, in tables."""
    n = len(blocks)
    out = np.zeros((n, FEATURES), np.float32)
    if n == 0:
        return out
    sums = container_sums(blocks, containers)
    page = np.zeros(PAGE, np.float32)
    page_values(blocks, state, page, 0)
    trails(blocks, bits, out, ITSELF + AROUND + PAGE + NEIGHBOURS)
    for i in range(n):
        row = out[i]
        itself(text, blocks, i, row, 0)
        around(blocks, i, sums, state[0], row, ITSELF)
        for column in range(PAGE):
            row[ITSELF + AROUND + column] = page[column]
        neighbours(blocks, i, row, ITSELF + AROUND + PAGE)
        flags(bits, i, row, ITSELF + AROUND + PAGE + NEIGHBOURS + TRAIL)
    return out


@compiled
def probabilities(rows, columns, thresholds, left, values, starts, base):  # type: ignore[no-untyped-def]
    """The trees' probability for each row. A node leads to `left` where its column is at most its threshold, else to `left` + 1.

    A leaf has column -1 and its value in log-odds.
    """
    found = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        total = base
        for tree in range(len(starts)):
            node = starts[tree]
            while columns[node] >= 0:
                node = left[node] + (rows[i, columns[node]] > thresholds[node])
            total += values[node]
        found[i] = 1.0 / (1.0 + np.exp(-total))
    return found
