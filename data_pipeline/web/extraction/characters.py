"""What the scanner reads byte by byte: words by their hash, references to characters, attributes, comments, the ends of scripts.

A search that finds nothing leaves a mark in the state and is not made again.
"""

import numpy as np

from data_pipeline.web.compiled import inner
from data_pipeline.web.extraction.layout import (
    A_ARIA,
    A_CLASS,
    A_CONTEXT,
    A_HIDDEN,
    A_HREF,
    CP1252,
    HIDING,
    NO_APOSTROPHE,
    NO_COMMENT_END,
    NO_QUOTE,
    NO_RAW,
    SCRIPT,
)
from data_pipeline.web.extraction.vocabulary import ATTRIBUTE as H_ATTRIBUTE
from data_pipeline.web.extraction.vocabulary import CLASS_WORD, ENTITY, PRIME, ROLE


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
def find(page, i, byte):  # type: ignore[no-untyped-def]
    """Where `byte` stands from i on, or -1."""
    for place in range(i, len(page)):
        if page[place] == byte:
            return place
    return -1


@inner
def find_end(page, i):  # type: ignore[no-untyped-def]
    """The place behind the next ">"; a "<" ends a tag that was never closed."""
    n = len(page)
    at = i + 1
    while at < n and page[at] != 62 and page[at] != 60:
        at += 1
    return at + 1 if at < n and page[at] == 62 else at


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
        if code == 0 or not ((at < n and page[at] == 59) or code < 256):
            return i + 1, 0
    if at < n and page[at] == 59:
        at += 1
    return at, encode(code, pending)


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
def separates(first, second):  # type: ignore[no-untyped-def]
    """Whether a character of several bytes is punctuation: U+00A0 to U+00BF, U+2000 to U+207F, U+3000 to U+303F."""
    return (first == 194 and second < 192 and second != 169) or (first == 226 and second <= 129) or (first == 227 and second == 128)
