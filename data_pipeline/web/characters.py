"""What each code point is to the rules: one number of class bits and one folded letter per code point, built once per process.

The classes are those of the published pipelines: what spaCy's English tokenizer splits off at either end of a word, what counts as a symbol
for Gopher's word lengths, what ends a line for FineWeb (Unicode's Sentence_Terminal), what `str.splitlines` takes for a line break.
"""

import unicodedata
from functools import cache

import numpy as np

from data_pipeline.web.text_pass import (
    ALPHABETIC,
    BEFORE_DOT,
    BREAK,
    CURRENCY,
    DIGIT,
    HASHED,
    HOST,
    ICON,
    LETTER,
    LINE_END,
    LOWER,
    MARK,
    PREFIX,
    PUNCTUATION,
    QUOTE,
    SENTENCE_END,
    SPACE,
    SUFFIX,
    SYMBOL,
    UPPER,
)

MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧"
MONEY = "$£€¥฿﷼" + "".join(map(chr, range(0x20A0, 0x20C0)))
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
SYMBOLS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
CONTROLS = ((0, 9), (11, 13), (13, 32), (127, 160))

# Unicode's Sentence_Terminal, and those of them that spaCy's rule-based sentence splitter does not know
SENTENCE_TERMINAL = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA 1803 1809 "
    "1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F "
    "A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 "
    "115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88"
)
NOT_IN_SPACY = (
    "61D-61E 837 839 83D-83E 17D4-17D6 17D9-17DA 1B7D-1B7E 2E53-2E54 10F55-10F59 10F86-10F89 11944 11946 11EF7-11EF8 11F43-11F44 16E98"
)
# Blocks whose scripts have no case: a full stop or a comma between two of their characters splits words as between letters of both cases.
UNCASED = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-97F 980-9FF B80-BFF C00-C7F C80-CFF D80-DFF 1100-11FF 1200-137F 2E80-2FFF "
    "3000-30FF 31C0-31EF 3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FDFB FE30-FE4F FE70-FEFC 1EE00-1EEBB 1F200-1F2FF 20000-2EBEF "
    "2F800-2FA1F"
)
# Latin, Greek and Cyrillic: the scripts with case whose letters the tokenizer knows
CASED = "41-5A 61-7A B5 C0-24F 250-2AF 386-3CE 400-45F 490-4E9 1D00-1D9A 1E00-1EFF 2C60-2C7F A722-A7FA AB30-AB64 FF21-FF3A FF41-FF5A"
NAMED = 0x20000  # code points above are ideographs or unassigned


def code_points(ranges: str) -> np.ndarray:
    """The code points of "41-5A 61": int64 [count]."""
    pairs = [one.split("-") for one in ranges.split()]
    return np.concatenate([np.arange(int(pair[0], 16), int(pair[-1], 16) + 1) for pair in pairs])


def points(characters: str) -> np.ndarray:
    return np.fromiter(map(ord, characters), np.int64, len(characters))


@cache
def class_table() -> np.ndarray:
    """The class bits of each code point: uint32 [0x110000]."""
    table = np.zeros(0x110000, np.uint32)
    for point in range(NAMED):
        table[point] = named_bits(chr(point))
    table[code_points("20000-2A6DF 2A700-2EBE0 2F800-2FA1D 30000-323AF")] |= ALPHABETIC | HASHED
    table[code_points(UNCASED)] |= LETTER | LOWER | UPPER
    cased = code_points(CASED)
    table[cased] |= np.fromiter((cased_bits(chr(point)) for point in cased), np.uint32, len(cased))
    table[0x30:0x3A] |= DIGIT | BEFORE_DOT
    table[points("§%=—–" + MARKS + QUOTES + MONEY)] |= PREFIX
    table[points("—–" + MARKS + QUOTES)] |= SUFFIX
    table[points(QUOTES)] |= QUOTE
    table[points(MONEY)] |= CURRENCY
    table[points("%²-+|" + MARKS + QUOTES)] |= BEFORE_DOT
    table[(table & LOWER) > 0] |= BEFORE_DOT
    table[points(BREAKS)] |= BREAK
    table[points(SYMBOLS)] |= SYMBOL
    for first, end in CONTROLS:
        table[first:end] |= SYMBOL
    table[code_points(SENTENCE_TERMINAL)] |= SYMBOL | LINE_END | SENTENCE_END
    table[code_points(NOT_IN_SPACY)] &= ~np.uint32(SENTENCE_END)
    table[code_points("30-39 41-5A 61-7A A1-FFFF")] |= HOST
    return table


def named_bits(character: str) -> int:
    """The bits that Unicode's own properties give."""
    category = unicodedata.category(character)
    bits = 0
    if character.isspace():
        bits |= SPACE
    if category[0] == "L":
        bits |= ALPHABETIC | HASHED
    elif character.isalnum():
        bits |= HASHED
    elif category[0] == "M":
        bits |= MARK
    elif category[0] == "P":
        bits |= PUNCTUATION
    elif category == "So":
        bits |= ICON | PREFIX | SUFFIX
    return bits


def cased_bits(character: str) -> int:
    if not character.isalpha():
        return 0
    return LETTER | (UPPER if character.isupper() else LOWER)


@cache
def fold_table() -> np.ndarray:
    """The letter that a code point counts as when words are compared: lower case, without accents; uint32 [0x110000]."""
    table = np.arange(0x110000, dtype=np.uint32)
    for point in range(NAMED):
        character = chr(point)
        lower = character.lower()[0]
        if point < 0xAC00 or point > 0xD7AF:  # Hangul syllables would lose all but their first letter
            whole = unicodedata.normalize("NFD", lower)
            base = [one for one in whole if not unicodedata.combining(one)]
            lower = base[0] if len(base) == 1 else lower
        table[point] = ord(lower)
    return table
