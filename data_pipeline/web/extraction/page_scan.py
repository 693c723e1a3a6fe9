"""One pass over a page's bytes: a list of text blocks with what is known of each. No tree is built and nothing recurses.

Tags are read as browsers read them, with the same forgiveness, onto a stack of open elements that is at most `max_stack` deep. A block is
the text between two tags of block elements (or two `<br>`), with white space made plain. Every loop moves forward, and a search that
finds nothing is not made again, so the time is linear in the page's bytes.
"""

import numpy as np

from data_pipeline.web.compiled import compiled, inner
from data_pipeline.web.extraction.characters import (
    character_reference,
    find,
    find_end,
    is_blank,
    is_letter,
    is_markup,
    lookup,
    lower,
    read_attributes,
    separates,
    skip_comment,
    skip_raw,
    step,
)
from data_pipeline.web.extraction.elements import close_element, flush, open_element
from data_pipeline.web.extraction.layout import (
    BEGIN,
    BEGIN_PLACE,
    BLOCKS,
    BOLD,
    BOLD_CONTEXT,
    BREAK_RUN,
    CAPITALS,
    CHARS,
    CODE_CONTEXT,
    COMMAS,
    DIGITS,
    ELEMENTS,
    HIDES,
    INLINE_CLASS,
    K_BLOCK,
    K_CONTEXT,
    K_ID,
    K_OWN,
    LINK_CHARS,
    LINK_CONTEXT,
    LINK_TOTAL,
    LINK_WORDS,
    OUT,
    PRE_CONTEXT,
    SENTENCES,
    SPACE,
    STARTED,
    STATES,
    STOPS,
    SUMS,
    TABLE_CONTEXT,
    TABLE_TOTAL,
    TEXT_BITS,
    TOP,
    TOTAL,
    WORDS,
    P,
)
from data_pipeline.web.extraction.vocabulary import RAW, STOP_BIT, TAG, TAG_KIND, TEXT_WORD

# compiled.digest of PARTS: a change there must change this file, since numba keeps what it compiled of this file by this file alone.
PARTS = ("vocabulary.py", "layout.py", "characters.py", "elements.py")
DIGEST = "ba1d198b3a18"


@inner
def end_word(s, keys, values, key, capital, linked):  # type: ignore[no-untyped-def]
    """Counts a word."""
    bits = lookup(keys, values, key)
    s[SUMS + WORDS - CHARS] += 1
    s[SUMS + LINK_WORDS - CHARS] += linked
    s[SUMS + STOPS - CHARS] += bits >> STOP_BIT & 1
    s[SUMS + CAPITALS - CHARS] += capital
    s[TEXT_BITS] |= bits & ~(np.int64(1) << STOP_BIT)


@inner
def blank(s, text, is_hard, is_pre, byte):  # type: ignore[no-untyped-def]
    """White space in a block: as it is in <pre>, a pending space elsewhere; hard blanks stay where they indent."""
    out = s[OUT]
    if is_pre and (byte == 10 or s[STARTED]):
        if s[STARTED]:
            text[out] = byte
            s[OUT] = out + 1
    elif is_hard or (byte == 160 and s[STARTED] and text[out - 1] == 10 and not s[SPACE]):
        text[out] = 32
        s[OUT] = out + 1
    elif s[STARTED]:
        s[SPACE] = 1


@inner
def begin_block(s, place):  # type: ignore[no-untyped-def]
    s[STARTED] = 1
    s[BEGIN] = s[OUT]
    s[BEGIN_PLACE] = min(place, 2**31 - 1)
    s[SPACE] = 0


@inner
def write(s, text, byte, place):  # type: ignore[no-untyped-def]
    """A byte that is no blank into the open block, or a new one, with the space before it; returns the characters this makes."""
    if not s[STARTED]:
        begin_block(s, place)
        s[INLINE_CLASS] = 0
    out = s[OUT]
    chars = 1 if byte & 192 != 128 else 0
    if s[SPACE]:
        text[out] = 32
        out += 1
        s[SPACE] = 0
        chars += 1
    s[BREAK_RUN] = 0
    text[out] = byte
    s[OUT] = out + 1
    return chars


@inner
def in_word(s, keys, values, byte, following, word, linked):  # type: ignore[no-untyped-def]
    """One byte more of a word, or the mark that ends it. `word`: hash, bytes, begins with a capital, a sentence ended."""
    key, length, capital, mark = word
    if (is_letter(byte) or 48 <= byte <= 57 or (byte >= 128 and not separates(byte, following))) and (length or not 128 <= byte < 192):
        if length == 0:
            capital = 1 if 65 <= byte <= 90 else 0
        if 48 <= byte <= 57:
            s[SUMS + DIGITS - CHARS] += 1
        return step(key, lower(byte)), length + 1, capital, 0
    if byte < 128 or byte >= 192:
        if length:
            end_word(s, keys, values, key, capital, linked)
        key, length, capital = np.uint64(TEXT_WORD), 0, 0
    if byte == 46 or byte == 33 or byte == 63:
        mark = 1
    elif byte == 44:
        s[SUMS + COMMAS - CHARS] += 1
    return key, length, capital, mark


@inner
def after_words(s, keys, values, word, linked):  # type: ignore[no-untyped-def]
    """Ends the word and the sentence that a blank or a tag ends."""
    key, length, capital, mark = word
    if length:
        end_word(s, keys, values, key, capital, linked)
    s[SUMS + SENTENCES - CHARS] += mark
    return np.uint64(TEXT_WORD), 0, 0, 0


@inner
def read_text(page, i, s, stack, text, keys, values, pending):  # type: ignore[no-untyped-def]
    """Text up to the next tag into the open block; returns where that tag begins."""
    n, context = len(page), stack[s[TOP], K_CONTEXT]
    if context & HIDES:
        found = find(page, i + 1, 60)
        return found if found >= 0 else n
    linked = 1 if context & LINK_CONTEXT else 0
    is_pre, is_code = context & PRE_CONTEXT != 0, context & (CODE_CONTEXT | PRE_CONTEXT) != 0
    word = (np.uint64(TEXT_WORD), 0, 0, 0)
    have = taken = chars = 0
    while taken < have or i < n:
        if taken < have:
            byte = pending[taken]
            taken += 1
        else:
            byte = page[i]
            if byte == 60 and is_markup(page, i):
                break
            i += 1
            if byte == 38:
                i, have = character_reference(page, i - 1, keys, values, pending)
                taken = 0
                if have:
                    continue
        following = pending[taken] if taken < have else (page[i] if i < n else np.uint8(0))
        if byte == 194 and (following == 160 or following == 173):  # a hard blank, a soft hyphen
            i, taken = (i, taken + 1) if taken < have else (i + 1, taken)
            if following == 173:
                continue
            byte = np.uint8(160)
        elif byte > 32 and byte != 127:
            chars += write(s, text, byte, i)
            word = in_word(s, keys, values, byte, following, word, linked)
            continue
        elif not is_blank(byte):
            continue
        word = after_words(s, keys, values, word, linked)
        hard = is_code and (byte == 160 or (is_pre and byte != 10))
        if hard and not s[STARTED]:
            begin_block(s, i)
        if byte != 13:
            blank(s, text, hard, is_pre, byte)
    after_words(s, keys, values, word, linked)
    if chars:
        count_characters(s, stack, context, chars, linked)
    return i


@inner
def count_characters(s, stack, context, chars, linked):  # type: ignore[no-untyped-def]
    """Adds the characters of a text node to its block and to the page."""
    s[SUMS] += chars
    s[SUMS + LINK_CHARS - CHARS] += chars * linked
    s[SUMS + BOLD - CHARS] += chars if context & BOLD_CONTEXT else 0
    s[TOTAL] += chars
    s[LINK_TOTAL] += chars * linked
    if context & TABLE_CONTEXT:
        s[TABLE_TOTAL] += chars
    top = s[TOP]
    for level in range(stack[top, K_BLOCK] + 1, top + 1):
        if level > top - 4:
            s[INLINE_CLASS] |= stack[level, K_OWN]


@inner
def read_markup(page, i, s, stack, opened, text, blocks, bits, keys, values, scratch):  # type: ignore[no-untyped-def]
    """Reads the tag or comment at i; returns the place behind it."""
    n = len(page)
    following = page[i + 1]
    if not is_letter(following) and not (following == 47 and is_letter(page[i + 2])):
        return skip_comment(page, i, s)
    is_end = following == 47
    begin = at = i + 2 if is_end else i + 1
    key = np.uint64(TAG)
    while at < n and not is_blank(page[at]) and page[at] != 62 and page[at] != 47 and page[at] != 60:
        key = step(key, lower(page[at]))
        at += 1
    tag = lookup(keys, values, key)
    if is_end:
        if tag == P and opened[P] <= 0:
            flush(s, stack, text, blocks, bits)
        elif TAG_KIND[tag] != RAW:
            close_element(s, stack, opened, text, blocks, bits, tag)
        return find_end(page, at - 1)
    name_end = at
    at = read_attributes(page, at, s, keys, values, scratch)
    closed = at < 0
    at = abs(at)
    if TAG_KIND[tag] == RAW:
        s[ELEMENTS] += 1
        return skip_raw(page, at, tag, begin, name_end, s)
    open_element(s, stack, opened, text, blocks, bits, tag, closed)
    return at


@compiled
def scan(page, keys, values, max_stack, max_blocks):  # type: ignore[no-untyped-def]
    """The page's blocks: (text uint8, blocks int32 [n, 26], bits int64 [n, 5], state int64). `page` is UTF-8.

    Elements deeper than `max_stack` are not followed, and text after `max_blocks` joins the last block.
    """
    n, tags = len(page), 0
    for i in range(n):
        tags += page[i] == 60
    limit = min(tags + 1, max_blocks)
    text = np.empty(n + tags + 16, np.uint8)
    blocks, bits = np.empty((limit, 26), np.int32), np.empty((limit, 5), np.int64)
    stack, opened = np.zeros((min(tags + 2, max_stack), 12), np.int64), np.zeros(128, np.int64)
    s, pending, scratch = np.zeros(STATES, np.int64), np.zeros(8, np.uint8), np.zeros(512, np.uint8)
    stack[0, K_ID] = -1
    i = n * 0  # a literal 0 would have everything compiled twice
    while i < n:
        if page[i] == 60 and is_markup(page, i):
            i = read_markup(page, i, s, stack, opened, text, blocks, bits, keys, values, scratch)
        else:
            i = read_text(page, i, s, stack, text, keys, values, pending)
    flush(s, stack, text, blocks, bits)
    return text[: s[OUT]], blocks[: s[BLOCKS]], bits[: s[BLOCKS]], s
