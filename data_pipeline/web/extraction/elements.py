"""Tags onto the stack of open elements, as browsers read them and with the same forgiveness; block elements end blocks of text.

Every element is pushed and popped once, and the nearest open element of a name is known, so no end tag searches the stack.
"""

# ruff: noqa: SIM109
from data_pipeline.web.compiled import inner
from data_pipeline.web.extraction.characters import is_blank
from data_pipeline.web.extraction.layout import (
    A_ARIA,
    A_CLASS,
    A_CONTEXT,
    A_HIDDEN,
    A_HREF,
    ARIA,
    B_ALL,
    B_CONTEXT,
    B_NEAR,
    B_OWN,
    B_TEXT,
    BEGIN,
    BEGIN_PLACE,
    BLOCKS,
    BODY,
    BR,
    BREAK_RUN,
    BREAKS,
    C_DEPTH,
    C_TAG,
    CHARS,
    CODE_CLASS,
    CODE_CONTEXT,
    CONTAINERS,
    DD,
    DEPTH,
    DT,
    ELEMENTS,
    END,
    H1,
    H6,
    HEAD,
    HIDES,
    HR,
    HTML,
    IMAGES,
    IMG,
    INLINE_CLASS,
    ITEM,
    ITEMS,
    K_ALL,
    K_BLOCK,
    K_CELL,
    K_CONTEXT,
    K_ID,
    K_ITEM,
    K_LISTS,
    K_OWN,
    K_PREVIOUS,
    K_ROW,
    K_TABLE,
    K_TAG,
    LI,
    LINK_CONTEXT,
    LINKS,
    LIST_DEPTH,
    LISTS,
    OUT,
    OVER,
    OWN,
    PLACE,
    ROW,
    ROWS,
    SPACE,
    START,
    STARTED,
    SUMS,
    TABLE,
    TABLE_PARTS,
    TABLE_TAG,
    TABLES,
    TD,
    TEXT_BITS,
    TH,
    TOP,
    TR,
    A,
    P,
)
from data_pipeline.web.extraction.vocabulary import BLOCK, HIDDEN, INLINE, TAG_CONTEXT, TAG_KIND, VOID


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
