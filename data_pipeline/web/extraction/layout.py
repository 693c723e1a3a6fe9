"""The columns and bits in which a page's blocks, its open elements and the state of the scan are kept."""

# ruff: noqa: SIM905
import numpy as np

from data_pipeline.web.extraction.vocabulary import ARIA_BIT, CONTEXTS, HIDDEN_BIT, TAGS

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
