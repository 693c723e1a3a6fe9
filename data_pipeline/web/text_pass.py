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
JOINED = 7  # characters of the longest exception that is put together from several tokens
MATCHED = 1 << 16  # flag of the exceptions that are found between other tokens too
SEED = np.uint64(0xCBF29CE484222325)
STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd
MIX = np.uint64(0xFF51AFD7ED558CCD)
HALF = np.uint64(32)
EMPTY = -1
SHORT_LINE = 30  # characters; FineWeb
LONG_WORD = 1000  # characters; C4
PHRASES = (  # what C4 looks for in a line, each with its bit: 1 javascript, 2 placeholder text, 4 a policy's phrase
    ("javascript", 1),
    ("lorem ipsum", 2),
    ("terms of use", 4),
    ("privacy policy", 4),
    ("cookie policy", 4),
    ("uses cookies", 4),
    ("use of cookies", 4),
    ("use cookies", 4),
)
PHRASE_CODES = np.frombuffer("".join(phrase.ljust(LONGEST, "\0") for phrase, _ in PHRASES).encode("utf-32-le"), np.uint32).reshape(
    -1, LONGEST
)
PHRASE_BITS = np.array([bit for _, bit in PHRASES], np.int64)
BRACE = 8
UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb "
    "GB tb TB T G M K % + US$ C$ A$"
)
AFTER_DIGIT = np.array([int.from_bytes(unit.encode("latin-1"), "big") for unit in UNITS.split()], np.int64)
# token flags
ALL_PUNCTUATION, ENDS_SENTENCE = 1, 2
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
    TOP_2,
    TOP_3,
    TOP_4,
    REPEATED_5,
) = range(29)
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
def exception(text, start, end, keys, pieces):
    """The pieces of an exception, -1 where the part is none."""
    if end - start > LONGEST or end == start:
        return -1
    key = hash_of(text, start, end)
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
    packed, size = 0, 0
    for place in range(end - 1, max(end - 5, start), -1):  # what is split off after a digit
        digit_before = (classes[text[place - 1]] & DIGIT) != 0
        if digit_before and place == end - 1 and classes[last] & CURRENCY:
            return 1
        if text[place] > 255:
            break
        packed |= np.int64(text[place]) << (8 * size)
        size += 1
        if not digit_before:
            continue
        for unit in AFTER_DIGIT:
            if packed == unit:
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
    number_after = after & DIGIT or (place + 1 < end and text[place + 1] == 45)
    if before & DIGIT and number_after and (code == 43 or code == 45 or code == 42 or code == 94):
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
def put_parts(start, end, pieces, bounds, number):
    """Appends the pieces of an exception, or the whole for 0 and -1; returns the number of tokens."""
    if pieces > 0:
        for size in (pieces & 255, (pieces >> 8) & 255):
            if size:
                bounds[number, 0], bounds[number, 1] = start, start + size
                number += 1
                start += size
    bounds[number, 0], bounds[number, 1] = start, end
    return number + 1


@compiled
def split_middle(text, start, end, classes, keys, pieces, bounds, number):
    """Appends what is left between prefixes and suffixes: an exception, an address, or parts between infixes."""
    whole = exception(text, start, end, keys, pieces)
    if whole >= 0 or is_address(text, start, end, classes):
        return put_parts(start, end, whole, bounds, number)
    part, place = start, start
    while place <= end:
        size = infix_length(text, start, end, place, classes) if place < end else 0
        if place < end and (size == 0 or place == start):
            place += max(size, 1)
            continue
        if place > part:
            found = exception(text, part, place, keys, pieces)
            number = put_parts(part, place, found if found >= MATCHED else 0, bounds, number)
        if place < end:
            bounds[number, 0], bounds[number, 1] = place, place + size
            number += 1
        place += max(size, 1)
        part = place
    return number


@compiled
def split_run(text, start, end, classes, keys, pieces, bounds, number, suffixes):
    """Appends the tokens of a run without white space; `suffixes` is room for the ends that were split off, int32 [characters]."""
    split, last = 0, -1
    while start < end and end - start != last:
        last = end - start
        if exception(text, start, end, keys, pieces) >= 0:
            break
        front = prefix_length(text, start, end, classes)
        back = suffix_length(text, start + front, end, classes)
        if front and exception(text, start + front, end, keys, pieces) >= 0:
            back = 0
        elif back and exception(text, start, end - back, keys, pieces) >= 0:
            front = 0
        if front:
            bounds[number, 0], bounds[number, 1] = start, start + front
            number += 1
            start += front
        if back:
            suffixes[split] = end
            split += 1
            end -= back
    if start < end:
        number = split_middle(text, start, end, classes, keys, pieces, bounds, number)
    begin = end
    while split > 0:
        split -= 1
        bounds[number, 0], bounds[number, 1] = begin, suffixes[split]
        number += 1
        begin = suffixes[split]
    return number


@compiled
def join_exceptions(text, keys, pieces, bounds, before, number):
    """Joins neighbours in the run's tokens [before, number) that read as a whole exception, such as the smile behind a word."""
    kept, token = before, before
    while token < number:
        start, last = bounds[token, 0], token
        for other in range(min(number, token + JOINED) - 1, token, -1):
            if bounds[other, 1] - start <= JOINED and exception(text, start, bounds[other, 1], keys, pieces) == MATCHED:
                last = other
                break
        bounds[kept, 0], bounds[kept, 1] = start, bounds[last, 1]
        kept, token = kept + 1, last + 1
    return kept


@compiled
def tokens_of(text, classes, keys, pieces):
    """The bounds of all tokens but white space: int32 [tokens, 2]."""
    size = len(text)
    bounds, suffixes = np.empty((size, 2), np.int32), np.empty(size, np.int32)
    number, place = 0, 0
    while place < size:
        if classes[text[place]] & SPACE:
            place += 1
            continue
        stop, bits, common = place, np.uint32(0), np.uint32(0xFFFFFFFF)
        while stop < size and not classes[text[stop]] & SPACE:
            bits |= classes[text[stop]]
            common &= classes[text[stop]]
            stop += 1
        if bits & (SYMBOL | PREFIX | SUFFIX | ICON | CURRENCY) or (bits & DIGIT and not common & DIGIT):
            before = number
            number = split_run(text, place, stop, classes, keys, pieces, bounds, number, suffixes)
            if number > before + 1:
                number = join_exceptions(text, keys, pieces, bounds, before, number)
        else:  # letters or digits only: nothing can be split off
            number = put_parts(place, stop, exception(text, place, stop, keys, pieces), bounds, number)
        place = stop
    return bounds[:number]


@compiled
def facts_of(text, classes, bounds, stops, counts):
    """The 64-bit hash and the flags of each token; counts words, their characters, tokens with letters and stop words.

    `stops` int64 [8] are the stop words, four letters packed into each.
    """
    hashes, flags = np.empty(len(bounds), np.uint64), np.empty(len(bounds), np.uint8)
    counts[TOKENS] = len(bounds)
    for number in range(len(bounds)):
        state, packed, any_of, all_of, largest = SEED, 0, np.uint32(0), np.uint32(0xFFFFFFFF), np.uint32(0)
        size = bounds[number, 1] - bounds[number, 0]
        for place in range(bounds[number, 0], bounds[number, 1]):
            code = text[place]
            bits = classes[code]
            state = (state ^ np.uint64(code)) * STEP
            state ^= state >> np.uint64(29)
            any_of |= bits
            all_of &= bits
            largest |= code
            packed = (packed << 8) | np.int64(code)
        if not all_of & SYMBOL:
            counts[WORDS] += 1
            counts[WORD_CHARACTERS] += size
        counts[LETTER_WORDS] += (any_of & ALPHABETIC) != 0
        flags[number] = ALL_PUNCTUATION if all_of & PUNCTUATION else 0
        if size == 1 and all_of & SENTENCE_END:
            flags[number] |= ENDS_SENTENCE
        if 2 <= size <= 4 and largest < 128:
            for one in range(len(stops)):
                if packed == stops[one]:
                    counts[STOP_WORDS] |= 1 << one
        hashes[number] = mixed(state)
    return hashes, flags


@compiled
def sentences_of(text, start, end, classes, bounds, flags, token):
    """How many sentences the line [start, end) has, of which `token` is the first token, and the first token behind the line."""
    sentences, ended, behind = 1, False, start
    while token < len(bounds) and bounds[token, 0] < end:
        gap = bounds[token, 0] - behind
        if ended and (gap > 1 or (gap == 1 and text[behind] != 32)):  # the tokenizer keeps other white space as a token
            sentences, ended = sentences + 1, False
        if flags[token] & ENDS_SENTENCE:
            ended = True
        elif ended and not flags[token] & ALL_PUNCTUATION:
            sentences, ended = sentences + 1, False
        behind = bounds[token, 1]
        token += 1
    return sentences, token


@compiled
def words_of(text, start, end, classes):
    """How many words between white space the line [start, end) has; 0 where one of them is too long for C4."""
    words, place = 0, start
    while place < end:
        stop = place
        while stop < end and not classes[text[stop]] & SPACE:
            stop += 1
        if stop - place > LONG_WORD:
            return 0
        words += stop > place
        place = stop + 1
    return words


@compiled
def lines_of(text, classes, bounds, flags, given, counts, kept):
    """What is counted by lines as str.splitlines cuts them; returns the words of each line, int32 [lines].

    `given` are those of the text from which citations were taken out; its lines are then looked at as they are, unstripped. `kept` int64
    [lines, 2] takes the bounds of the lines that C4 keeps, where it has room.
    """
    size = len(text)
    line_words = np.empty(size + 1, np.int32)
    start, token = 0, 0
    while start < size or counts[LINES] < len(given):
        end = start
        while end < size and not classes[text[end]] & BREAK:
            end += 1
        first, last = start, end
        if len(given) == 0:
            while first < last and classes[text[first]] & SPACE:
                first += 1
            while last > first and classes[text[last - 1]] & SPACE:
                last -= 1
        words = given[counts[LINES]] if len(given) else words_of(text, first, last, classes)
        line_words[counts[LINES]] = words
        counts[LINES] += 1
        if last > first:
            counts[BULLET_LINES] += text[first] == 0x2022 or text[first] == 45
            dots = last - first >= 3 and text[last - 1] == 46 and text[last - 2] == 46 and text[last - 3] == 46
            counts[ELLIPSIS_LINES] += dots or text[last - 1] == 0x2026
            sentences, token = sentences_of(text, first, last, classes, bounds, flags, token)
            if words >= 3 and not dots and c4_line(text, first, last, sentences, counts) and counts[C4_LINES] <= len(kept):
                kept[counts[C4_LINES] - 1, 0], kept[counts[C4_LINES] - 1, 1] = first, last
        start = end + 1
        if end + 1 < size and text[end] == 13 and text[end + 1] == 10:
            start += 1
    return line_words[: counts[LINES]]


@compiled
def phrases(text, start, end):
    """The bits of C4's phrases, in any case, and of an opening brace in [start, end)."""
    found = 0
    for place in range(start, end):
        code = text[place]
        if code == 123:
            found |= BRACE
        code |= np.uint32(32)
        if code != 106 and code != 108 and code != 116 and code != 112 and code != 99 and code != 117:  # j l t p c u
            continue
        for phrase in range(len(PHRASE_CODES)):
            if PHRASE_CODES[phrase, 0] != code:
                continue
            size = 0
            while size < LONGEST and PHRASE_CODES[phrase, size]:
                if place + size >= end:
                    break
                other = text[place + size]
                if 65 <= other <= 90:
                    other += np.uint32(32)
                if PHRASE_CODES[phrase, size] != other:
                    break
                size += 1
            if PHRASE_CODES[phrase, size] == 0:
                found |= PHRASE_BITS[phrase]
    return found


@compiled
def c4_line(text, start, end, sentences, counts):
    """C4's rules for a line of three words or more; true where the line stays, and its sentences are counted."""
    last = text[end - 1]
    if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39):
        return False
    found = phrases(text, start, end)
    counts[C4_LOREM] += (found & 2) != 0
    if found & 1:
        return False
    counts[C4_BRACES] += (found & BRACE) != 0
    if found & 4:
        return False
    counts[C4_LINES] += 1
    counts[C4_SENTENCES] += sentences
    return True


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
def grams_of(hashes, bounds, counts):
    """The characters of the commonest 2-, 3- and 4-gram, joined by blanks, and those of repeated 5- to 10-grams."""
    size = len(hashes)
    sums, ends = np.empty(size + 1, np.uint64), np.empty(size + 1, np.int64)
    sums[0], ends[0] = 0, 0
    for number in range(size):
        sums[number + 1] = sums[number] * MIX + hashes[number]
        ends[number + 1] = ends[number] + bounds[number, 1] - bounds[number, 0]
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
