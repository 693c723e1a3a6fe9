"""One pass over a page's bytes: a list of text blocks with what is known of each. No tree is built and nothing recurses.

Tags are read as browsers read them, with the same forgiveness, onto a stack of open elements that is at most `MAX_STACK` deep. A block is the
text between two tags of block elements (or two `<br>`), with white space made plain. Every loop moves forward, and a search that finds
nothing is not made again, so the time is linear in the page's bytes.
"""

import numpy as np

from data_pipeline.web.compiled import compiled, inner
from data_pipeline.web.extraction.vocabulary import ATTRIBUTE as H_ATTRIBUTE
from data_pipeline.web.extraction.vocabulary import ARIA_BIT, CLASS_WORD, ENTITY, HIDDEN_BIT, PRIME, ROLE, STOP_BIT, TAG, TAG_CONTEXT, TAG_KIND
from data_pipeline.web.extraction.vocabulary import BLOCK, CONTEXTS, HIDDEN, INLINE, RAW, TAGS, TEXT_WORD, VOID

MAX_STACK = 2_000  # open elements that are followed
MAX_BLOCKS = 100_000  # later text joins the last block
VOCABULARY = 140610  # vocabulary.digest(): a change there must change this file, since numba keeps what it compiled by this file alone

# Columns of a block (int32). FIRST to LAST are sums over its text.
COLUMNS = (
    "start end tag depth own parent grandparent great row table item list_depth place "
    "chars link_chars words link_words stops sentences commas digits capitals links bold breaks images"
).split()
START, END, C_TAG, C_DEPTH, OWN, PARENT, GRANDPARENT, GREAT, ROW, TABLE, ITEM, LIST_DEPTH, PLACE = range(13)
CHARS, LINK_CHARS, WORDS, LINK_WORDS, STOPS, SENTENCES, COMMAS, DIGITS, CAPITALS, LINKS, BOLD, BREAKS, IMAGES = range(13, 26)
# Bits of a block (int64): contexts, class words of the element, of it and two around it, of all around it, text words.
B_CONTEXT, B_OWN, B_NEAR, B_ALL, B_TEXT = range(5)
# The scanner's state: what is measured of the page, then what the scan needs, then attributes of the tag being read.
OUT, BLOCKS, ELEMENTS, DEPTH, TOTAL, LINK_TOTAL, TABLE_TOTAL, HIDDEN_TOTAL = range(8)
TOP, OVER, SPACE, BREAK_RUN, STARTED, CONTAINERS, ROWS, TABLES, ITEMS, INLINE_CLASS, TEXT_BITS, BEGIN, BEGIN_PLACE = range(8, 21)
A_CLASS, A_CONTEXT, A_HIDDEN, A_HREF, A_ARIA, NO_QUOTE, NO_APOSTROPHE, NO_COMMENT_END, NO_RAW, SUMS = range(21, 31)
STATES = SUMS + 13
# Columns of an open element.
K_TAG, K_CONTEXT, K_OWN, K_ALL, K_ID, K_ROW, K_TABLE, K_ITEM, K_LISTS, K_BLOCK, K_CELL, K_PREVIOUS = range(12)

A, BR, IMG, HR, P, LI, TR, TD, TH, PRE, DIV, BODY = (TAGS[one] for one in "a br img hr p li tr td th pre div body".split())
HTML, HEAD, TABLE_TAG, DT, DD, SCRIPT, STYLE, H1, H6 = (TAGS[one] for one in "html head table dt dd script style h1 h6".split())
TABLE_PARTS = tuple(TAGS[one] for one in "table tbody thead tfoot tr td th html body".split())
LISTS = tuple(TAGS[one] for one in "ul ol dl menu dir".split())
LINK_CONTEXT, BOLD_CONTEXT, TABLE_CONTEXT = 1 << CONTEXTS["a"], 1 << CONTEXTS["b"], 1 << CONTEXTS["table"]
PRE_CONTEXT, CODE_CONTEXT = 1 << CONTEXTS["pre"], 1 << CONTEXTS["code"]
HIDES, ARIA = 1 << HIDDEN_BIT, 1 << ARIA_BIT
CODE_CLASS = 1 << 32
# What hides an element by its style, without blanks.
HIDING = np.frombuffer(b"display:none\0visibility:hidden\0font-size:0\0left:-999\0top:-999\0text-indent:-999\0", np.uint8)
# Windows-1252 behind the numbers 128 to 159 of character references.
CP1252 = np.array([ord(bytes([one]).decode("cp1252", "replace")) for one in range(128, 160)], np.int64)


@inner
def lookup(keys, values, key):  # type: ignore[no-untyped-def]
    """A word's value, 0 when it is not known."""
    mask = np.uint64(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return values[place]
        place = (place + np.uint64(1)) & mask
    return np.int64(0)


@inner
def lower(byte):  # type: ignore[no-untyped-def]
    return byte + 32 if 65 <= byte <= 90 else byte


@inner
def is_letter(byte):  # type: ignore[no-untyped-def]
    return 97 <= (byte | 32) <= 122


@inner
def is_blank(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or 9 <= byte <= 13


@inner
def step(key, byte):  # type: ignore[no-untyped-def]
    return (key ^ np.uint64(byte)) * np.uint64(PRIME)


@inner
def is_markup(page, i):  # type: ignore[no-untyped-def]
    """Whether the "<" at i begins a tag or a comment; else it is text."""
    if i + 1 >= len(page):
        return False
    following = page[i + 1]
    return is_letter(following) or following == 33 or following == 63 or (following == 47 and i + 2 < len(page) and page[i + 2] != 32)


@inner
def flush(s, stack, text, blocks, bits):  # type: ignore[no-untyped-def]
    """Ends the open block."""
    if not s[STARTED]:
        return
    s[STARTED] = 0
    s[SPACE] = 0
    out = s[OUT]
    while out > s[BEGIN] and is_blank(text[out - 1]):
        out -= 1
    s[OUT] = out
    if s[SUMS] == 0:  # nothing but blanks
        s[OUT] = s[BEGIN]
        return
    s[BREAK_RUN] = 0
    n = s[BLOCKS]
    joined = n == len(blocks)
    if joined:
        n -= 1
    else:
        s[BLOCKS] = n + 1
        begin_row(s, stack, blocks[n], bits[n])
    blocks[n, END] = out
    bits[n, B_TEXT] |= s[TEXT_BITS]
    for column in range(13):
        blocks[n, CHARS + column] += s[SUMS + column]
        s[SUMS + column] = 0
    s[TEXT_BITS] = 0
    s[INLINE_CLASS] = 0
    text[s[OUT]] = 10
    s[OUT] += 1


@inner
def begin_row(s, stack, block, bit):  # type: ignore[no-untyped-def]
    """Fills what a block has from the open elements around it."""
    level = stack[s[TOP], K_BLOCK]
    for column in range(26):
        block[column] = 0
    block[START] = s[BEGIN]
    block[C_TAG] = stack[level, K_TAG]
    block[C_DEPTH] = level
    block[ROW], block[TABLE] = stack[level, K_ROW], stack[level, K_TABLE]
    block[ITEM], block[LIST_DEPTH] = stack[level, K_ITEM], stack[level, K_LISTS]
    block[PLACE] = s[BEGIN_PLACE]
    bit[B_CONTEXT] = stack[level, K_CONTEXT]
    bit[B_OWN] = stack[level, K_OWN]
    if s[SUMS] < 100:
        bit[B_OWN] |= s[INLINE_CLASS]
    bit[B_ALL] = stack[level, K_ALL] | bit[B_OWN]
    bit[B_NEAR] = bit[B_OWN]
    bit[B_TEXT] = 0
    for column in range(4):
        if stack[level, K_ID] < 0:
            stack[level, K_ID] = s[CONTAINERS]
            s[CONTAINERS] += 1
        block[OWN + column] = stack[level, K_ID]
        if column < 3:
            bit[B_NEAR] |= stack[level, K_OWN]
        if level > 0:
            level = stack[level - 1, K_BLOCK]


@inner
def push(s, stack, opened, tag, context, own):  # type: ignore[no-untyped-def]
    """Opens an element."""
    top = s[TOP]
    if top + 1 >= len(stack):
        s[OVER] += 1
        s[DEPTH] = max(s[DEPTH], top + s[OVER])
        return
    new = stack[top + 1]
    for column in range(12):
        new[column] = stack[top, column]
    top += 1
    s[TOP] = top
    s[DEPTH] = max(s[DEPTH], top)
    new[K_TAG], new[K_OWN], new[K_ID] = tag, own, -1
    new[K_CONTEXT] |= context
    new[K_ALL] |= own
    new[K_PREVIOUS] = opened[tag]
    opened[tag] = top
    kind = TAG_KIND[tag]
    if kind == BLOCK or kind == HIDDEN:
        new[K_BLOCK] = top
    if tag == TR:
        s[ROWS] += 1
        new[K_ROW] = s[ROWS]
    elif tag == TABLE_TAG:
        s[TABLES] += 1
        new[K_TABLE], new[K_ROW] = s[TABLES], 0
    elif tag == TD or tag == TH:
        new[K_CELL] = top
    elif tag == LI or tag == DD or tag == DT:
        s[ITEMS] += 1
        new[K_ITEM] = s[ITEMS] if tag == LI else 0
    elif tag in LISTS:
        new[K_LISTS] += 1


@inner
def pop_to(s, stack, opened, level):  # type: ignore[no-untyped-def]
    """Closes the element at `level` and all inside it."""
    for one in range(s[TOP], level - 1, -1):
        opened[stack[one, K_TAG]] = stack[one, K_PREVIOUS]
    s[TOP] = level - 1


@inner
def close_element(s, stack, opened, text, blocks, bits, tag):  # type: ignore[no-untyped-def]
    """An end tag: closes the nearest open element of its name, if one may be closed from here."""
    kind = TAG_KIND[tag]
    if kind == BLOCK:
        flush(s, stack, text, blocks, bits)
    if s[OVER] > 0:
        s[OVER] -= 1
        return
    level = opened[tag]
    if level <= 0 or tag == BODY or tag == HTML:  # what comes behind </body> is still shown
        return
    top = s[TOP]
    if level < stack[top, K_CELL] and tag not in TABLE_PARTS:
        return
    if kind == INLINE and tag != A and level <= stack[top, K_BLOCK]:
        return
    if kind == INLINE and level <= stack[top, K_BLOCK]:
        flush(s, stack, text, blocks, bits)
    pop_to(s, stack, opened, level)


@inner
def close_implied(s, stack, opened, tag):  # type: ignore[no-untyped-def]
    """Closes what the start tag of a block element closes without an end tag of its own."""
    if opened[HEAD] > 0 and tag != HEAD:
        pop_to(s, stack, opened, opened[HEAD])
    near = stack[s[TOP], K_BLOCK]
    if stack[near, K_TAG] == P:
        pop_to(s, stack, opened, near)
        near = stack[s[TOP], K_BLOCK]
    name = stack[near, K_TAG]
    if (
        (tag == LI and name == LI)
        or ((tag == DT or tag == DD) and (name == DT or name == DD))
        or (H1 <= tag <= H6 and H1 <= name <= H6)
        or ((tag == TD or tag == TH or tag == TR) and (name == TD or name == TH))
    ):
        pop_to(s, stack, opened, near)
        near = stack[s[TOP], K_BLOCK]
    if tag == TR and stack[near, K_TAG] == TR:
        pop_to(s, stack, opened, near)


@inner
def open_element(s, stack, opened, text, blocks, bits, tag, closed):  # type: ignore[no-untyped-def]
    """A start tag with the attributes that `read_attributes` left in the state."""
    s[ELEMENTS] += 1
    kind = TAG_KIND[tag]
    if tag == BR:
        break_line(s, stack, text, blocks, bits)
    elif tag == HR:
        flush(s, stack, text, blocks, bits)
    elif tag == IMG:
        s[SUMS + IMAGES - CHARS] += 1
    if kind == VOID or (closed and tag == 0):
        return
    context, own = TAG_CONTEXT[tag] | s[A_CONTEXT], s[A_CLASS]
    if kind == BLOCK or tag == HEAD:
        flush(s, stack, text, blocks, bits)
        if s[OVER] == 0:
            close_implied(s, stack, opened, tag)
    elif tag == A:
        if s[A_HREF] and opened[A] > stack[s[TOP], K_CELL] and s[OVER] == 0:
            if opened[A] <= stack[s[TOP], K_BLOCK]:
                flush(s, stack, text, blocks, bits)
            pop_to(s, stack, opened, opened[A])
        context = context if s[A_HREF] else context & ~LINK_CONTEXT
        s[SUMS + LINKS - CHARS] += s[A_HREF]
    if kind == INLINE and own & CODE_CLASS:
        context |= CODE_CONTEXT
    if tag == BODY or tag == HTML:
        own = 0
    elif kind == HIDDEN or s[A_HIDDEN]:
        context |= HIDES
    elif s[A_ARIA]:
        context |= ARIA
    push(s, stack, opened, tag, context, own)


@inner
def break_line(s, stack, text, blocks, bits):  # type: ignore[no-untyped-def]
    """A <br>: a line inside a block; the second without text between them ends the block."""
    s[BREAK_RUN] += 1
    if s[STARTED]:
        if s[BREAK_RUN] > 1:
            flush(s, stack, text, blocks, bits)
            return
        out = s[OUT]
        while out > s[BEGIN] and text[out - 1] == 32:
            out -= 1
        text[out] = 10
        s[OUT] = out + 1
        s[SPACE] = 0
        s[SUMS + BREAKS - CHARS] += 1


@inner
def find(page, i, byte):  # type: ignore[no-untyped-def]
    """Where `byte` stands from i on, or -1."""
    for place in range(i, len(page)):
        if page[place] == byte:
            return place
    return -1


@inner
def class_bits(page, start, end, keys, values):  # type: ignore[no-untyped-def]
    """The groups of the words in a class or id: whole words, and words of five letters or more as beginnings."""
    found = np.int64(0)
    key, length, before = np.uint64(CLASS_WORD), 0, 0
    for place in range(start, end):
        byte = page[place]
        if not is_letter(byte) or (byte < 97 and before >= 97):
            if length > 0:
                found |= lookup(keys, values, key)
            key, length = np.uint64(CLASS_WORD), 0
        if is_letter(byte):
            key = step(key, lower(byte))
            length += 1
            if length >= 5:
                bits = lookup(keys, values, key)
                if bits:
                    found |= bits
                    key, length = np.uint64(CLASS_WORD), 0
        before = byte
    if length > 0:
        found |= lookup(keys, values, key)
    return found


@inner
def style_hides(page, start, end, scratch):  # type: ignore[no-untyped-def]
    """Whether a style takes its element out of sight."""
    length = 0
    for place in range(start, min(end, start + 1000)):
        if not is_blank(page[place]) and length < len(scratch) - 8:
            scratch[length] = lower(page[place])
            length += 1
    for place in range(length, length + 8):
        scratch[place] = 0
    at = 0
    while at < len(HIDING):
        size = 0
        while HIDING[at + size] != 0:
            size += 1
        for place in range(length - size + 1):
            same = 0
            while same < size and scratch[place + same] == HIDING[at + same]:
                same += 1
            following = scratch[place + size]
            if same == size and not (HIDING[at + size - 1] == 48 and (following == 46 or 48 <= following <= 57)):
                return True
        at += size + 1
    return False


@inner
def keep_attribute(page, kind, start, end, s, keys, values, scratch):  # type: ignore[no-untyped-def]
    """One attribute that counts, with its value from start to end."""
    if kind == 1:
        s[A_CLASS] |= class_bits(page, start, end, keys, values)
    elif kind == 2:
        key = np.uint64(ROLE)
        for place in range(start, min(end, start + 40)):
            key = step(key, lower(page[place]))
        bit = lookup(keys, values, key)
        if bit:
            s[A_CONTEXT] |= np.int64(1) << (bit - 1)
    elif kind == 3:
        s[A_HIDDEN] = 1
    elif kind == 4:
        if style_hides(page, start, end, scratch):
            s[A_HIDDEN] = 1
    elif kind == 5:
        s[A_HREF] = 1
    elif kind == 6 and end > start and lower(page[start]) == 116:
        s[A_ARIA] = 1


@inner
def attribute_value(page, i, s):  # type: ignore[no-untyped-def]
    """The value behind the "=" at i: (start, end, where to go on)."""
    n = len(page)
    i += 1
    while i < n and is_blank(page[i]):
        i += 1
    if i < n and (page[i] == 34 or page[i] == 39):
        memo = NO_QUOTE if page[i] == 34 else NO_APOSTROPHE
        end = -1 if s[memo] else find(page, i + 1, page[i])
        if end >= 0:
            return i + 1, end, end + 1
        s[memo] = 1
        i += 1
    start = i
    while i < n and not is_blank(page[i]) and page[i] != 62:
        i += 1
    return start, i, i


@inner
def read_attributes(page, i, s, keys, values, scratch):  # type: ignore[no-untyped-def]
    """Reads a start tag's attributes from behind its name; returns the place behind the tag, negative when it closes itself."""
    n = len(page)
    for one in range(A_CLASS, A_ARIA + 1):
        s[one] = 0
    closed = False
    while i < n and page[i] != 62:
        byte = page[i]
        if byte == 60:  # the tag was never closed
            return i
        if is_blank(byte) or byte == 47 or byte == 61:
            closed = byte == 47
            i += 1
            continue
        key, closed = np.uint64(H_ATTRIBUTE), False
        while i < n and not is_blank(page[i]) and page[i] != 61 and page[i] != 62 and page[i] != 47 and page[i] != 60:
            key = step(key, lower(page[i]))
            i += 1
        kind = lookup(keys, values, key)
        start = end = i
        at = i
        while at < n and is_blank(page[at]):
            at += 1
        if at < n and page[at] == 61:
            start, end, i = attribute_value(page, at, s)
        if kind:
            keep_attribute(page, kind, start, end, s, keys, values, scratch)
    i = min(i + 1, n)
    return -i if closed else i


@inner
def encode(code, pending):  # type: ignore[no-untyped-def]
    """A code point as UTF-8 into `pending`; returns how many bytes."""
    if code < 128:
        pending[0] = code
        return 1
    if code < 2048:
        pending[0], pending[1] = 192 | code >> 6, 128 | code & 63
        return 2
    if code < 65536:
        pending[0], pending[1], pending[2] = 224 | code >> 12, 128 | code >> 6 & 63, 128 | code & 63
        return 3
    pending[0], pending[1], pending[2], pending[3] = 240 | code >> 18, 128 | code >> 12 & 63, 128 | code >> 6 & 63, 128 | code & 63
    return 4


@inner
def character_reference(page, i, keys, values, pending):  # type: ignore[no-untyped-def]
    """What stands at the "&" at i: (place behind it, bytes in `pending`); no bytes when it is an ampersand only."""
    n, at, code = len(page), i + 1, np.int64(0)
    if at < n and page[at] == 35:
        at += 1
        base = 10
        if at < n and page[at] | 32 == 120:
            base = 16
            at += 1
        start = at
        while at < n and at < start + 9:
            byte = lower(page[at])
            digit = byte - 48 if 48 <= byte <= 57 else byte - 87 if 97 <= byte <= 102 else 99
            if digit >= base:
                break
            code = code * base + digit
            at += 1
        if at == start:
            return i + 1, 0
        if 128 <= code < 160:
            code = CP1252[code - 128]
        if code == 0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            code = 0xFFFD
    else:
        key = np.uint64(ENTITY)
        while at < n and at < i + 32 and (is_letter(page[at]) or 48 <= page[at] <= 57):
            key = step(key, page[at])
            at += 1
        code = lookup(keys, values, key)
        if code == 0 or not (at < n and page[at] == 59 or code < 256):
            return i + 1, 0
    if at < n and page[at] == 59:
        at += 1
    return at, encode(code, pending)


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
def separates(first, second, third):  # type: ignore[no-untyped-def]
    """Whether a character of several bytes is punctuation: U+00A0 to U+00BF, U+2000 to U+207F, U+3000 to U+303F."""
    return (first == 194 and second < 192 and second != 169) or (first == 226 and second <= 129) or (first == 227 and second == 128)


@inner
def begin_block(s, stack, place):  # type: ignore[no-untyped-def]
    s[STARTED] = 1
    s[BEGIN] = s[OUT]
    s[BEGIN_PLACE] = min(place, 2**31 - 1)
    s[SPACE] = 0


@inner
def read_text(page, i, s, stack, text, keys, values, pending):  # type: ignore[no-untyped-def]
    """Text up to the next tag into the open block; returns where that tag begins."""
    n, top = len(page), s[TOP]
    context = stack[top, K_CONTEXT]
    if context & HIDES:
        i = max(i + 1, find(page, i + 1, 60) if i + 1 < n else n)
        return i if i < n and page[i] == 60 else n
    linked = 1 if context & LINK_CONTEXT else 0
    bold = 1 if context & BOLD_CONTEXT else 0
    is_pre, is_code = context & PRE_CONTEXT != 0, context & (CODE_CONTEXT | PRE_CONTEXT) != 0
    key, length, capital, mark = np.uint64(TEXT_WORD), 0, 0, 0
    have = taken = 0
    chars = 0
    while True:
        if taken < have:
            byte = pending[taken]
            taken += 1
        elif i < n:
            byte = page[i]
            if byte == 60 and is_markup(page, i):
                break
            i += 1
            if byte == 38:
                i, have = character_reference(page, i - 1, keys, values, pending)
                taken = 0
                if have:
                    continue
        else:
            break
        following = pending[taken] if taken < have else (page[i] if i < n else np.uint8(0))
        if byte <= 32 or byte == 127 or (byte == 194 and following == 160):
            if byte == 194:
                if taken < have:
                    taken += 1
                else:
                    i += 1
            elif not is_blank(byte):
                continue
            if length:
                end_word(s, keys, values, key, capital, linked)
                key, length, capital = np.uint64(TEXT_WORD), 0, 0
            s[SUMS + SENTENCES - CHARS] += mark
            mark = 0
            hard = is_code and (byte == 194 or (is_pre and byte != 10))
            if hard and not s[STARTED]:
                begin_block(s, stack, i)
            if byte != 13:
                blank(s, text, hard, is_pre, 160 if byte == 194 else byte)
            continue
        if byte == 194 and following == 173:  # a soft hyphen
            if taken < have:
                taken += 1
            else:
                i += 1
            continue
        if not s[STARTED]:
            begin_block(s, stack, i)
            s[INLINE_CLASS] = 0
        if s[SPACE]:
            text[s[OUT]] = 32
            s[OUT] += 1
            s[SPACE] = 0
            chars += 1
        s[BREAK_RUN] = 0
        text[s[OUT]] = byte
        s[OUT] += 1
        if byte & 192 != 128:
            chars += 1
        third = 0
        is_word = is_letter(byte) or 48 <= byte <= 57 or (byte >= 128 and not separates(byte, following, third))
        if is_word and not (length == 0 and 128 <= byte < 192):
            if length == 0:
                capital = 1 if 65 <= byte <= 90 else 0
            key = step(key, lower(byte))
            length += 1
            mark = 0
            if 48 <= byte <= 57:
                s[SUMS + DIGITS - CHARS] += 1
        else:
            if length and byte < 128 or byte >= 192:
                if length:
                    end_word(s, keys, values, key, capital, linked)
                key, length, capital = np.uint64(TEXT_WORD), 0, 0
            if byte == 46 or byte == 33 or byte == 63:
                mark = 1
            elif byte == 44:
                s[SUMS + COMMAS - CHARS] += 1
    if length:
        end_word(s, keys, values, key, capital, linked)
    s[SUMS + SENTENCES - CHARS] += mark
    if chars:
        count_characters(s, stack, context, chars, linked, bold)
    return i


@inner
def count_characters(s, stack, context, chars, linked, bold):  # type: ignore[no-untyped-def]
    """Adds the characters of a text node to its block and to the page."""
    s[SUMS] += chars
    s[SUMS + LINK_CHARS - CHARS] += chars * linked
    s[SUMS + BOLD - CHARS] += chars * bold
    s[TOTAL] += chars
    s[LINK_TOTAL] += chars * linked
    if context & TABLE_CONTEXT:
        s[TABLE_TOTAL] += chars
    top = s[TOP]
    for level in range(stack[top, K_BLOCK] + 1, top + 1):
        if level > top - 4:
            s[INLINE_CLASS] |= stack[level, K_OWN]


@inner
def skip_comment(page, i, s):  # type: ignore[no-untyped-def]
    """The place behind the comment or declaration at i; a comment that never ends is only its own tag."""
    n = len(page)
    if i + 3 < n and page[i + 1] == 33 and page[i + 2] == 45 and page[i + 3] == 45 and not s[NO_COMMENT_END]:
        at = i + 4
        if at < n and page[at] == 62:
            return at + 1
        at = i + 4
        while at + 2 < n:
            if page[at + 2] == 62 and page[at] == 45 and page[at + 1] == 45:
                return at + 3
            at += 1
        s[NO_COMMENT_END] = 1
    cdata = i + 8 < n and page[i + 2] == 91 and page[i + 8] == 91
    end = i + 9 if cdata else find_end(page, i)
    return end


@inner
def find_end(page, i):  # type: ignore[no-untyped-def]
    """The place behind the next ">"; a "<" ends a tag that was never closed."""
    n = len(page)
    at = i + 1
    while at < n and page[at] != 62 and page[at] != 60:
        at += 1
    return at + 1 if at < n and page[at] == 62 else at


@inner
def skip_raw(page, i, tag, begin, end, s):  # type: ignore[no-untyped-def]
    """The place of the end tag of a script or the like; i when there is none. Its name stands from begin to end."""
    if s[NO_RAW] >> (tag - SCRIPT) & 1:
        return i
    n, size = len(page), end - begin
    at = i
    while at + size + 1 < n:
        if page[at] == 60 and page[at + 1] == 47:
            same = 0
            while same < size and lower(page[at + 2 + same]) == lower(page[begin + same]):
                same += 1
            if same == size:
                return at
        at += 1
    s[NO_RAW] |= np.int64(1) << (tag - SCRIPT)
    return i


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
    """The page's blocks: (text uint8, blocks int32 [n, 26], bits int64 [n, 5], state int64). `page` is UTF-8."""
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
