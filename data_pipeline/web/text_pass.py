"""The compiled pass over a text: tokens, lines, sentences, repeated parts and the values of Gopher, C4 and FineWeb, each counted once.

Tokens are those of spaCy's blank English tokenizer: a run without white space loses prefixes and suffixes one by one until an exception or
nothing more matches; what is left is an exception, an address (kept whole), or is split at infixes. All functions stand in this one file
because numba's cache of a function looks at its own file only.

Arrays: `text` uint32 [characters], `classes` and `fold` uint32 [0x110000] (see characters.py), token tables by token in order.
"""

import numpy as np

from data_pipeline.web.compiled import compiled

# class bits of code points: they stand here and not beside the tables, since a change of them must compile this file anew
SPACE, BREAK, LETTER, LOWER, UPPER, DIGIT = 1, 2, 4, 8, 16, 32
PREFIX, SUFFIX, ICON, QUOTE, BEFORE_DOT, CURRENCY = 64, 128, 256, 512, 1024, 2048
SYMBOL, ALPHABETIC, LINE_END, SENTENCE_END = 1 << 12, 1 << 13, 1 << 14, 1 << 15
PUNCTUATION, HASHED, MARK, HOST = 1 << 16, 1 << 17, 1 << 18, 1 << 19
LONGEST = 16  # characters of the longest exception, at most
SEED = np.uint64(0xCBF29CE484222325)
STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd
MIX = np.uint64(0xFF51AFD7ED558CCD)
HALF = np.uint64(32)
EMPTY = -1
SHORT_LINE = 30  # characters; FineWeb
LONG_WORD = 1000  # characters; C4
EDIT = np.frombuffer("[edit]".encode("utf-32-le"), np.uint32)
NEEDED = np.frombuffer("[citation needed]".encode("utf-32-le"), np.uint32)
JAVASCRIPT = np.frombuffer("javascript".encode("utf-32-le"), np.uint32)
LOREM = np.frombuffer("lorem ipsum".encode("utf-32-le"), np.uint32)
TERMS = np.frombuffer("terms of use".encode("utf-32-le"), np.uint32)
PRIVACY = np.frombuffer("privacy policy".encode("utf-32-le"), np.uint32)
COOKIE = np.frombuffer("cookie policy".encode("utf-32-le"), np.uint32)
USES_COOKIES = np.frombuffer("uses cookies".encode("utf-32-le"), np.uint32)
USE_OF_COOKIES = np.frombuffer("use of cookies".encode("utf-32-le"), np.uint32)
USE_COOKIES = np.frombuffer("use cookies".encode("utf-32-le"), np.uint32)
# token flags
IS_WORD, HAS_LETTER, ALL_PUNCTUATION, ENDS_SENTENCE = 1, 2, 4, 8
# places of the counts
(
    TOKENS,
    WORDS,
    WORD_CHARACTERS,
    LETTER_WORDS,
    STOP_WORDS,
    HASHES,
    ELLIPSES,
    LINES,
    BULLET_LINES,
    ELLIPSIS_LINES,
    C4_LINES,
    C4_SENTENCES,
    C4_BRACES,
    C4_LOREM,
    C4_POLICY,
    NEWLINES,
    TEXT_LINES,
    ENDED_LINES,
    SHORT_LINES,
    REPEATED_LINE_CHARACTERS,
    PARTS,
    REPEATED_PARTS,
    REPEATED_PART_CHARACTERS,
    PARAGRAPHS,
    REPEATED_PARAGRAPHS,
    REPEATED_PARAGRAPH_CHARACTERS,
    FOLDED_WORDS,
    TOP_2,
    TOP_3,
    TOP_4,
    REPEATED_5,
) = range(31)
COUNTS = REPEATED_5 + 6  # repeated 5-grams to 10-grams stand one after another


@compiled
def mixed(value):
    """A 64-bit number well mixed (the finaliser of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= MIX
    value ^= value >> np.uint64(29)
    value *= STEP
    return value ^ (value >> HALF)


@compiled
def hash_of(text, start, end):
    """The 64-bit hash of a part of the text."""
    state = SEED
    for place in range(start, end):
        state = (state ^ np.uint64(text[place])) * STEP
        state ^= state >> np.uint64(29)
    return mixed(state)


@compiled
def exception_table(codes, ends, pieces):
    """An open-addressed table of the exceptions: keys uint64 [size], pieces int64 [size]; -1 where nothing stands."""
    size = 4096
    keys, found = np.zeros(size, np.uint64), np.full(size, -1, np.int64)
    start = 0
    for number in range(len(ends)):
        key = hash_of(codes, start, ends[number])
        slot = np.int64(key & np.uint64(size - 1))
        while found[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        keys[slot], found[slot] = key, pieces[number]
        start = ends[number]
    return keys, found


@compiled
def exception(text, start, end, keys, pieces):
    """The pieces of an exception, -1 where the part is none."""
    if end - start > LONGEST or end == start:
        return -1
    return exception_by_key(hash_of(text, start, end), keys, pieces)


@compiled
def exception_by_key(key, keys, pieces):
    mask = len(keys) - 1
    slot = np.int64(key & np.uint64(mask))
    while pieces[slot] >= 0:
        if keys[slot] == key:
            return pieces[slot]
        slot = (slot + 1) & mask
    return -1


@compiled
def prefix_length(text, start, end, classes):
    """How many characters of [start, end) are split off in front."""
    first = text[start]
    bits = classes[first]
    if bits & (PREFIX | ICON):
        return 1
    if first == 46:
        place = start
        while place < end and text[place] == 46:
            place += 1
        return place - start if place - start > 1 else 0
    if first == 43:
        return 0 if start + 1 < end and classes[text[start + 1]] & DIGIT else 1
    if first == 85 and start + 2 < end and text[start + 1] == 83 and text[start + 2] == 36:
        return 3
    if (first == 67 or first == 65) and start + 1 < end and text[start + 1] == 36:
        return 2
    return 0


@compiled
def is_unit(text, start, end):
    """Whether [start, end) is a unit of measurement that is split off after a digit."""
    size = end - start
    first = text[start]
    if size == 1:
        return first == 109 or first == 103 or first == 116 or first == 84 or first == 71 or first == 77 or first == 75 or first == 37
    second = text[start + 1]
    if size == 3 and text[start + 2] in (0xB2, 0xB3):
        return second == 109 and (first == 107 or first == 100 or first == 99 or first == 109)
    if size == 2:
        if second == 109:
            return first == 107 or first == 100 or first == 99 or first == 109 or first == 110
        if second in (0xB2, 0xB3):
            return first == 109
        if second == 103:
            return first == 107 or first == 109 or first == 0xB5
        if second == 98:
            return first == 108 or first == 109 or first == 107 or first == 103 or first == 116
        if second == 66:
            return first == 77 or first == 75 or first == 71 or first == 84
        if second == 97:
            return first == 104 or first == 80
        return (
            (first == 121 and second == 100)
            or (first == 105 and second == 110)
            or (first == 102 and second == 116)
            or (first == 111 and second == 122)
        )
    third = text[start + 2]
    if size == 3:
        return (
            (first == 109 and second == 47 and third == 115)
            or (first == 107 and second == 109 and third == 104)
            or (first == 109 and second == 112 and third == 104)
            or (first == 104 and second == 80 and third == 97)
        )
    return size == 4 and (
        (first == 107 and second == 109 and third == 47 and text[start + 3] == 104)
        or (first == 109 and second == 98 and third == 97 and text[start + 3] == 114)
    )


@compiled
def suffix_length(text, start, end, classes):
    """How many characters of [start, end) are split off at the end; of several rules the one that takes most decides."""
    if end <= start:
        return 0
    last = text[end - 1]
    dots = 0
    if last == 46:
        place = end
        while place > start and text[place - 1] == 46:
            place -= 1
        dots = end - place
        if dots > 1:
            return dots
    for size in range(min(4, end - start - 1), 0, -1):  # what is split off after a digit
        if classes[text[end - size - 1]] & DIGIT:
            if size == 1 and (last == 43 or classes[last] & CURRENCY):
                return 1
            if size == 2 and last == 36 and (text[end - 2] == 67 or text[end - 2] == 65):
                return 2
            if size == 3 and last == 36 and text[end - 3] == 85 and text[end - 2] == 83:
                return 3
            if is_unit(text, end - size, end):
                return size
    if end - start >= 2 and (last == 115 or last == 83) and (text[end - 2] == 39 or text[end - 2] == 0x2019):
        return 2
    if classes[last] & (SUFFIX | ICON):
        return 1
    if dots == 1 and end - start >= 2:
        before = classes[text[end - 2]]
        if before & BEFORE_DOT:
            return 1
        if before & UPPER and end - start >= 3 and classes[text[end - 3]] & UPPER:
            return 1
        if end - start >= 3 and text[end - 3] == 0xB0 and (text[end - 2] | 32) in (102, 99, 107):  # 20 degrees C.
            return 1
    return 0


@compiled
def infix_length(text, start, end, place, classes):
    """The length of an infix that begins at `place`, strictly inside [start, end) or at its start; 0 for none."""
    code = text[place]
    bits = classes[code]
    if code == 46:
        stop = place
        while stop < end and text[stop] == 46:
            stop += 1
        if stop - place > 1:
            return stop - place
        if place > start and stop < end and classes[text[place - 1]] & (LOWER | QUOTE) and classes[text[stop]] & (UPPER | QUOTE):
            return 1
        return 0
    if code == 0x2026 or bits & ICON:
        return 1
    if place == start:
        return 0
    before = classes[text[place - 1]]
    after = classes[text[place + 1]] if place + 1 < end else 0
    dash = code == 45 or code == 0x2013 or code == 0x2014
    if before & DIGIT and (code == 43 or code == 45 or code == 42 or code == 94) and place + 1 < end:
        if after & DIGIT or text[place + 1] == 45:
            return 1
    if code == 44:
        return 1 if before & LETTER and after & LETTER else 0
    if before & (LETTER | DIGIT):
        if (dash or code == 126) and after & LETTER:
            return 1
        if code == 45 or code == 0x2014:
            stop = place + 1
            while stop < end and stop - place < 3 and text[stop] == code:
                stop += 1
            size = stop - place
            if size == 2 or (size == 3 and code == 45):
                return size if stop < end and classes[text[stop]] & LETTER else 0
        if (code == 58 or code == 60 or code == 61 or code == 62 or code == 47) and after & LETTER:
            return 1
    return 0


@compiled
def is_address(text, start, end, classes):
    """Whether [start, end) is a web or mail address: an optional scheme and user, names with dots, a port, a path."""
    dotted = False
    for place in range(start + 1, end - 2):
        if text[place] == 46:
            dotted = True
            break
    if not dotted:
        return False
    if is_host(text, start, end, classes):
        return True
    for place in range(start + 1, end - 3):
        code = text[place]
        if code == 64 and is_host(text, place + 1, end, classes):
            return True
        if code == 58 and place - start >= 2 and text[place + 1] == 47 and text[place + 2] == 47:
            word = True
            for one in range(start, place):
                other = text[one]
                if not (classes[other] & HASHED or other == 95 or other == 43 or other == 45 or other == 46):
                    word = False
                    break
            if word and is_host(text, place + 3, end, classes):
                return True
    return False


@compiled
def is_host(text, start, end, classes):
    """Names with dots and a last part of letters, then nothing, or a port, or a path."""
    place, dot, label = start, -1, start
    while place < end:
        code = text[place]
        if code == 46:
            if place == label or place - label > 64 or not classes[text[label]] & HOST or not classes[text[place - 1]] & HOST:
                return False
            dot, label = place, place + 1
        elif not (classes[code] & HOST or ((code == 95 or code == 45) and place > start)):
            break
        place += 1
    if dot < 0 or place - dot < 3 or place - dot > 64:
        return False
    for one in range(dot + 1, place):
        if not classes[text[one]] & LOWER:
            return False
    if place < end and text[place] == 58:
        port = place + 1
        while port < end and classes[text[port]] & DIGIT and port - place <= 5:
            port += 1
        if port - place < 3:
            return False
        place = port
    return place == end or text[place] == 47 or text[place] == 63 or text[place] == 35


@compiled
def add_token(text, start, end, classes, stops, token_hash, token_length, token_flags, counts):
    """Appends a token and counts it; `stops` uint32 [8] are the stop words, four letters packed in each."""
    number = counts[TOKENS]
    state, packed, any_of, all_of, largest = SEED, 0, np.uint32(0), np.uint32(0xFFFFFFFF), np.uint32(0)
    for place in range(start, end):
        code = text[place]
        bits = classes[code]
        state = (state ^ np.uint64(code)) * STEP
        state ^= state >> np.uint64(29)
        any_of |= bits
        all_of &= bits
        largest |= code
        packed = (packed << 8) | np.int64(code)
    flags = 0
    if not all_of & SYMBOL:
        flags |= IS_WORD
        counts[WORDS] += 1
        counts[WORD_CHARACTERS] += end - start
    if any_of & ALPHABETIC:
        flags |= HAS_LETTER
        counts[LETTER_WORDS] += 1
    if all_of & PUNCTUATION:
        flags |= ALL_PUNCTUATION
    size = end - start
    if size == 1 and all_of & SENTENCE_END:
        flags |= ENDS_SENTENCE
    if 2 <= size <= 4 and largest < 128:
        for one in range(len(stops)):
            if packed == stops[one]:
                counts[STOP_WORDS] |= 1 << one
    token_hash[number] = mixed(state)
    token_length[number] = end - start
    token_flags[number] = flags
    counts[TOKENS] = number + 1


@compiled
def add_parts(text, start, end, pieces, classes, stops, token_hash, token_length, token_flags, counts):
    """Appends the pieces of an exception."""
    first, second = pieces & 255, pieces >> 8
    if first:
        add_token(text, start, start + first, classes, stops, token_hash, token_length, token_flags, counts)
        start += first
    if second:
        add_token(text, start, start + second, classes, stops, token_hash, token_length, token_flags, counts)
        start += second
    add_token(text, start, end, classes, stops, token_hash, token_length, token_flags, counts)


@compiled
def add_middle(text, start, end, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts):
    """What is left between prefixes and suffixes: an exception, an address, or parts between infixes."""
    whole = exception(text, start, end, keys, pieces)
    if whole >= 0:
        add_parts(text, start, end, whole, classes, stops, token_hash, token_length, token_flags, counts)
        return
    if is_address(text, start, end, classes):
        add_token(text, start, end, classes, stops, token_hash, token_length, token_flags, counts)
        return
    part, place = start, start
    while place < end:
        size = infix_length(text, start, end, place, classes)
        if size == 0:
            place += 1
            continue
        if place > start:
            if place > part:
                one = exception(text, part, place, keys, pieces)
                add_parts(text, part, place, max(one, 0), classes, stops, token_hash, token_length, token_flags, counts)
            add_token(text, place, place + size, classes, stops, token_hash, token_length, token_flags, counts)
            part = place + size
        place += size
    if part < end:
        one = exception(text, part, end, keys, pieces)
        add_parts(text, part, end, max(one, 0), classes, stops, token_hash, token_length, token_flags, counts)


@compiled
def add_run(text, start, end, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts, suffixes):
    """Splits one run without white space; `suffixes` is room for the ends that were split off, int64 [characters + 1]."""
    split, last = 0, -1
    while start < end and end - start != last:
        if exception(text, start, end, keys, pieces) >= 0:
            break
        last = end - start
        front = prefix_length(text, start, end, classes)
        if front and exception(text, start + front, end, keys, pieces) >= 0:
            add_token(text, start, start + front, classes, stops, token_hash, token_length, token_flags, counts)
            start += front
            break
        back = suffix_length(text, start + front, end, classes)
        if back and exception(text, start, end - back, keys, pieces) >= 0:
            suffixes[split] = end
            split += 1
            end -= back
            break
        if front:
            add_token(text, start, start + front, classes, stops, token_hash, token_length, token_flags, counts)
            start += front
        if back:
            suffixes[split] = end
            split += 1
            end -= back
    if start < end:
        add_middle(text, start, end, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts)
    begin = end
    while split > 0:
        split -= 1
        add_token(text, begin, suffixes[split], classes, stops, token_hash, token_length, token_flags, counts)
        begin = suffixes[split]


@compiled
def line_tokens(text, start, end, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts, suffixes):
    """Appends the tokens of a stripped line; returns its words between white space, the longest of them and its sentences."""
    words, longest, sentences, ended = 0, 0, 1 if end > start else 0, False
    place = start
    while place < end:
        stop, bits, common = place, np.uint32(0), np.uint32(0xFFFFFFFF)
        if classes[text[place]] & SPACE:
            while stop < end and classes[text[stop]] & SPACE:
                stop += 1
            if ended and (stop - place > 1 or text[place] != 32):  # the tokenizer keeps other white space as a token
                sentences, ended = sentences + 1, False
            place = stop
            continue
        while stop < end and not classes[text[stop]] & SPACE:
            bits |= classes[text[stop]]
            common &= classes[text[stop]]
            stop += 1
        words += 1
        longest = max(longest, stop - place)
        before = counts[TOKENS]
        if bits & (SYMBOL | PREFIX | SUFFIX | ICON | CURRENCY) or (bits & DIGIT and not common & DIGIT):
            add_run(text, place, stop, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts, suffixes)
        else:
            add_plain(text, place, stop, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts)
        for number in range(before, counts[TOKENS]):
            flags = token_flags[number]
            if flags & ENDS_SENTENCE:
                ended = True
            elif ended and not flags & ALL_PUNCTUATION:
                sentences, ended = sentences + 1, False
        place = stop
    return words, longest, sentences


@compiled
def add_plain(text, start, end, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts):
    """A run of letters or of digits: one token, or the pieces of an exception such as cannot."""
    number, words, characters, letters = counts[TOKENS], counts[WORDS], counts[WORD_CHARACTERS], counts[LETTER_WORDS]
    add_token(text, start, end, classes, stops, token_hash, token_length, token_flags, counts)
    if end - start <= LONGEST:
        found = exception_by_key(token_hash[number], keys, pieces)
        if found > 0:
            counts[TOKENS], counts[WORDS], counts[WORD_CHARACTERS], counts[LETTER_WORDS] = number, words, characters, letters
            add_parts(text, start, end, found, classes, stops, token_hash, token_length, token_flags, counts)


@compiled
def citation_length(text, start, end, classes):
    """The length of [12], [], [edit] or [citation needed] at `start`, 0 where none stands."""
    place = start + 1
    while place < end and classes[text[place]] & DIGIT:
        place += 1
    if place < end and text[place] == 93:
        return place + 1 - start
    if starts_with(text, start, end, EDIT):
        return len(EDIT)
    return len(NEEDED) if starts_with(text, start, end, NEEDED) else 0


@compiled
def starts_with(text, start, end, wanted):
    """Whether the code points of `wanted`, lower case ASCII, stand at `start`, in any case."""
    if end - start < len(wanted):
        return False
    for place in range(len(wanted)):
        code = text[start + place]
        if 65 <= code <= 90:
            code += np.uint32(32)
        if code != wanted[place]:
            return False
    return True


@compiled
def phrases(text, start, end):
    """What C4 looks for in a line: bit 1 javascript, 2 lorem ipsum, 4 a policy's phrase, 8 an opening brace."""
    found = 0
    for place in range(start, end):
        code = text[place]
        if code == 123:
            found |= 8
        code |= np.uint32(32)
        second = text[place + 1] | np.uint32(32) if place + 1 < end else np.uint32(0)
        if code == 106 and second == 97:
            found |= starts_with(text, place, end, JAVASCRIPT)
        elif code == 108 and second == 111:
            found |= 2 * starts_with(text, place, end, LOREM)
        elif code == 116 and second == 101:
            found |= 4 * starts_with(text, place, end, TERMS)
        elif code == 112 and second == 114:
            found |= 4 * starts_with(text, place, end, PRIVACY)
        elif code == 99 and second == 111:
            found |= 4 * starts_with(text, place, end, COOKIE)
        elif code == 117 and second == 115:
            found |= 4 * starts_with(text, place, end, USES_COOKIES)
            found |= 4 * (starts_with(text, place, end, USE_OF_COOKIES) or starts_with(text, place, end, USE_COOKIES))
    return found


@compiled
def c4_line(text, start, end, words, longest, sentences, counts):
    """C4's rules for one line without citations; true where the line stays, and its sentences are counted."""
    if longest > LONG_WORD or words < 3 or end == start:
        return False
    last = text[end - 1]
    if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39):
        return False
    if end - start >= 3 and last == 46 and text[end - 2] == 46 and text[end - 3] == 46:
        return False
    found = phrases(text, start, end)
    if found & 2:
        counts[C4_LOREM] += 1
    if found & 1:
        return False
    if found & 8:
        counts[C4_BRACES] += 1
    if found & 4:
        counts[C4_POLICY] += 1
        return False
    counts[C4_LINES] += 1
    counts[C4_SENTENCES] += sentences
    return True


@compiled
def without_citations(text, start, end, classes, room):
    """Copies [start, end) without citations into `room`; returns how many characters are left."""
    size, place = 0, start
    while place < end:
        skip = citation_length(text, place, end, classes) if text[place] == 91 else 0
        if skip:
            place += skip
            continue
        room[size] = text[place]
        size += 1
        place += 1
    return size


@compiled
def lines_of(text, classes, keys, pieces, stops, counts, kept):
    """Tokens, and what is counted by lines as str.splitlines cuts them. Returns the hash and the length of each token.

    `kept` int64 [lines, 2] takes the bounds of the lines that C4 keeps, where it has room.
    """
    size = len(text)
    token_hash, token_length, token_flags = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.uint8)
    suffixes = np.empty(size, np.int32)
    start = 0
    while start < size:
        end, cited = start, False
        while end < size and not classes[text[end]] & BREAK:
            cited |= text[end] == 91
            end += 1
        first, last = start, end
        while first < last and classes[text[first]] & SPACE:
            first += 1
        while last > first and classes[text[last - 1]] & SPACE:
            last -= 1
        counts[LINES] += 1
        if last > first:
            counts[BULLET_LINES] += text[first] == 0x2022 or text[first] == 45
            dots = last - first >= 3 and text[last - 1] == 46 and text[last - 2] == 46 and text[last - 3] == 46
            counts[ELLIPSIS_LINES] += dots or text[last - 1] == 0x2026
            words, longest, sentences = line_tokens(
                text, first, last, classes, keys, pieces, stops, token_hash, token_length, token_flags, counts, suffixes
            )
            stays = True
            if cited:
                stays = cited_line(text, first, last, words, longest, sentences, classes, keys, pieces, stops, counts)
            else:
                stays = c4_line(text, first, last, words, longest, sentences, counts)
            if stays and counts[C4_LINES] <= len(kept):
                kept[counts[C4_LINES] - 1, 0], kept[counts[C4_LINES] - 1, 1] = first, last
        start = end + 1
        if end + 1 < size and text[end] == 13 and text[end + 1] == 10:
            start += 1
    return token_hash[: counts[TOKENS]], token_length[: counts[TOKENS]]


@compiled
def cited_line(text, first, last, words, longest, sentences, classes, keys, pieces, stops, counts):
    """C4's rules for a line with an opening bracket: citations are taken out before the line is looked at."""
    room = np.empty(last - first, np.uint32)
    size = without_citations(text, first, last, classes, room)
    if size < last - first:
        spare = np.zeros(len(counts), np.int64)
        hashes, lengths, flags = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.uint8)
        _, _, sentences = line_tokens(room, 0, size, classes, keys, pieces, stops, hashes, lengths, flags, spare, np.empty(size, np.int32))
    return c4_line(room, 0, size, words, longest, sentences, counts)


@compiled
def power_of_two(least):
    size = 8
    while size < least:
        size *= 2
    return size


@compiled
def seen_before(key, table):
    """Whether a key is in the set of nonzero keys; puts it there."""
    mask = len(table) - 1
    key |= np.uint64(1)
    slot = np.int64((key >> np.uint64(20)) & np.uint64(mask))
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    table[slot] = key
    return False


@compiled
def parts_of(text, classes, counts):
    """Lines between newlines and paragraphs between blank lines, and which of them stood in the text before; marks that are counted."""
    size = len(text)
    dots = 0
    for place in range(size):
        code = text[place]
        counts[NEWLINES] += code == 10
        counts[HASHES] += code == 35
        dots = dots + 1 if code == 46 else 0
        counts[ELLIPSES] += (code == 0x2026) + (dots > 0 and dots % 3 == 0)
    lines, paragraphs = np.zeros(power_of_two(2 * counts[NEWLINES] + 4), np.uint64), np.zeros(power_of_two(counts[NEWLINES] + 4), np.uint64)
    start = 0
    while start <= size:
        end, blank, state = start, True, SEED
        while end < size and text[end] != 10:
            blank &= (classes[text[end]] & SPACE) != 0
            state = (state ^ np.uint64(text[end])) * STEP
            state ^= state >> np.uint64(29)
            end += 1
        repeated = seen_before(mixed(state), lines)
        counts[PARTS] += 1
        if repeated:
            counts[REPEATED_PARTS] += 1
            counts[REPEATED_PART_CHARACTERS] += end - start
        if not blank:
            counts[TEXT_LINES] += 1
            counts[ENDED_LINES] += (classes[text[end - 1]] & LINE_END) != 0
            counts[SHORT_LINES] += end - start <= SHORT_LINE
            counts[REPEATED_LINE_CHARACTERS] += end - start if repeated else 0
        start = end + 1
        while start < size and text[start] == 10:  # a run of newlines is one cut
            start += 1
    paragraphs_of(text, classes, paragraphs, counts)


@compiled
def paragraphs_of(text, classes, table, counts):
    """Counts the paragraphs of the stripped text, cut at two newlines or more."""
    start, size = 0, len(text)
    while start < size and classes[text[start]] & SPACE:
        start += 1
    while size > start and classes[text[size - 1]] & SPACE:
        size -= 1
    while start <= size:
        end, state = start, SEED
        while end < size and not (text[end] == 10 and end + 1 < size and text[end + 1] == 10):
            state = (state ^ np.uint64(text[end])) * STEP
            state ^= state >> np.uint64(29)
            end += 1
        counts[PARAGRAPHS] += 1
        if seen_before(mixed(state), table):
            counts[REPEATED_PARAGRAPHS] += 1
            counts[REPEATED_PARAGRAPH_CHARACTERS] += end - start
        if end >= size:
            break
        start = end
        while start < size and text[start] == 10:
            start += 1


@compiled
def folded_words(text, classes, fold):
    """The hash of each run of letters and digits, lower case and without accents: uint64 [words]."""
    found = np.empty(len(text) // 2 + 1, np.uint64)
    count, state, inside = 0, SEED, False
    for place in range(len(text)):
        code = text[place]
        bits = classes[code]
        if bits & HASHED:
            state = (state ^ np.uint64(fold[code])) * STEP
            state ^= state >> np.uint64(29)
            inside = True
        elif inside and not bits & MARK:
            found[count] = mixed(state)
            count, state, inside = count + 1, SEED, False
    if inside:
        found[count] = mixed(state)
        count += 1
    return found[:count]


@compiled
def grams_of(token_hash, token_length, counts):
    """The characters of the commonest 2-, 3- and 4-gram, joined by blanks, and those of repeated 5- to 10-grams."""
    size = len(token_hash)
    sums, ends = np.empty(size + 1, np.uint64), np.empty(size + 1, np.int64)
    sums[0], ends[0] = 0, 0
    for number in range(size):
        sums[number + 1] = sums[number] * MIX + token_hash[number]
        ends[number + 1] = ends[number] + token_length[number]
    twice = np.ones(size + 1, np.bool_)
    power = MIX
    for length in range(2, 5):
        power *= MIX
        common_gram(length, power, sums, ends, twice, counts)
    runs = np.zeros(size + 1, np.int32)  # from each token on, how many 4-grams one after another come twice
    most = 0
    for number in range(size - 1, -1, -1):
        if twice[number]:
            runs[number] = runs[number + 1] + 1
            most += 1
    table = np.full(power_of_two(2 * most + 2), -1, np.int64)
    for length in range(5, 11):
        power *= MIX
        repeated_grams(length, power, sums, ends, runs, table, counts)


@compiled
def common_gram(length, power, sums, ends, twice, counts):
    """Finds the commonest n-gram, of several the first; `twice` says where the (n-1)-gram comes twice, and then where the n-gram does."""
    size = len(sums) - 1
    candidates = 0
    for start in range(size - length + 1):
        candidates += twice[start] and twice[start + 1]
    table = np.full(power_of_two(2 * candidates + 2), -1, np.int32)
    mask = len(table) - 1
    first, times = np.empty(size, np.int32), np.zeros(size, np.int32)
    for start in range(size - length + 1):
        first[start] = EMPTY
        if not (twice[start] and twice[start + 1]):
            continue
        key = sums[start + length] - sums[start] * power
        slot = np.int64(mixed(key) & np.uint64(mask))
        while table[slot] >= 0 and sums[table[slot] + length] - sums[table[slot]] * power != key:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = start
        first[start] = table[slot]
        times[table[slot]] += 1
    best, place = 1, 0
    for start in range(size - length + 1):
        if times[start] > best:
            best, place = times[start], start
    for start in range(size + 1):
        twice[start] = start <= size - length and first[start] >= 0 and times[first[start]] > 1
    if size >= length:
        counts[TOP_2 + length - 2] = best * (ends[place + length] - ends[place] + length - 1)


@compiled
def repeated_grams(length, power, sums, ends, runs, table, counts):
    """Characters in n-grams seen before, from left to right; after a repeated one the search goes on behind it."""
    size = len(sums) - 1
    mask = len(table) - 1
    stamp = length << 40  # entries of a shorter length count as empty
    start, total = 0, 0
    while start <= size - length:
        if runs[start] < length - 3:
            start += 1
            continue
        key = sums[start + length] - sums[start] * power
        slot = np.int64(mixed(key) & np.uint64(mask))
        found = False
        while table[slot] >= stamp:
            other = table[slot] - stamp
            if sums[other + length] - sums[other] * power == key:
                found = True
                break
            slot = (slot + 1) & mask
        if found:
            total += ends[start + length] - ends[start]
            start += length
        else:
            table[slot] = stamp + start
            start += 1
    counts[REPEATED_5 + length - 5] = total


@compiled
def measure_text(text, classes, fold, keys, pieces, stops, kept):
    """All counts of a text (int64 [COUNTS]) and its folded words' hashes."""
    counts = np.zeros(COUNTS, np.int64)
    token_hash, token_length = lines_of(text, classes, keys, pieces, stops, counts, kept)
    parts_of(text, classes, counts)
    grams_of(token_hash, token_length, counts)
    return counts, folded_words(text, classes, fold)
