"""The main text of a web page: trafilatura, with resiliparse where the page's shape is not one that trafilatura is made for.

The choice is made from measured values of the page, never from its address: how deep and how large its tree is, how much of its text lies
in tables (the layout of old pages, whose lines trafilatura would join into table rows).
"""

import logging
import re
from dataclasses import dataclass

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree, NodeType, traverse_dom

from data_pipeline.web.reading.bodies import decoded

# Past these sizes trafilatura takes minutes or recurses too deep; resiliparse's time stays linear.
MAX_ELEMENTS = 100_000
MAX_DEPTH = 250
MAX_BYTES = 8_000_000
# From this share of the text inside tables a page is laid out by tables.
TABLE_LAYOUT = 0.3
# When trafilatura finds fewer characters than this, and less than this share of the page's text, it has missed the page.
MIN_CHARACTERS, MIN_COVERAGE = 300, 0.1

SKIPPED = frozenset({"script", "style", "noscript", "template", "head", "svg"})
BLANK_LINES = re.compile(r"\n{3,}")
# resiliparse separates table cells by tabs: those of empty cells before a line's text, and several between two texts.
EMPTY_CELLS = re.compile(r"^(?: +\t[ \t]*|\t{2,} *)", re.MULTILINE)
CELL_GAPS = re.compile(r"(?<=\S) *\t{2,} *(?=\S)")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Extraction:
    """The main text, how it was found, and what was measured on the way."""

    text: str
    method: str  # "trafilatura", "resiliparse" or "tree" (all text), and "none" where there is no text
    why: str = ""  # why not trafilatura: "depth", "elements", "size", "tables", "coverage", "failed"
    link_density: float = 0.0
    elements: int = 0
    depth: int = 0


@dataclass
class Shape:
    """What one walk over the tree measures; characters do not count white space at both ends of a text node."""

    elements: int = 0
    depth: int = 0
    characters: int = 0
    link_characters: int = 0
    table_characters: int = 0

    def share(self, part: int) -> float:
        return part / self.characters if self.characters else 0.0


def extract(html: bytes, url: str | None = None) -> str:
    """The main text of a page, "" when there is none. Charset: byte-order mark, the page's declaration, else detected. Never raises."""
    return extract_page(html, url=url).text


def extract_page(html: bytes, charset: str = "", url: str | None = None) -> Extraction:
    """As `extract`, with how the text was found. `charset` is what the HTTP header declared, if anything."""
    if not html.strip():
        return Extraction("", "none")
    text = CONTROL.sub("", decoded(html, charset))
    tree = HTMLTree.parse(text)
    shape = measure(tree)
    measured = {"link_density": shape.share(shape.link_characters), "elements": shape.elements, "depth": shape.depth}
    if not shape.characters:
        return Extraction("", "none", **measured)
    why = unfit(shape, len(html))
    if why == "depth":  # resiliparse's own walk is quadratic in depth
        return Extraction(tidy((tree.body.text or "") if tree.body is not None else ""), "tree", why, **measured)
    found = "" if why else by_trafilatura(text, url)
    if not why and len(found) < min(MIN_CHARACTERS, MIN_COVERAGE * shape.characters):
        why = "coverage"
    if why:
        other = by_resiliparse(tree)
        if len(other) > len(found):
            return Extraction(other, "resiliparse", why, **measured)
    return Extraction(found, "trafilatura" if found else "none", "", **measured)


def unfit(shape: Shape, size: int) -> str:
    """Why a page is not given to trafilatura; empty when it is."""
    if shape.depth > MAX_DEPTH:
        return "depth"
    if shape.elements > MAX_ELEMENTS:
        return "elements"
    if size > MAX_BYTES:
        return "size"
    return "tables" if shape.share(shape.table_characters) > TABLE_LAYOUT else ""


def measure(tree: HTMLTree) -> Shape:
    """The shape of the page's body in one walk."""
    shape = Shape()
    inside: dict[str, int] = {}  # "a", "table" or "skipped" -> the depth of the outermost open element of that kind

    def enter(context) -> None:  # type: ignore[no-untyped-def]
        node, depth = context.node, context.depth
        for kind in [kind for kind, opened_at in inside.items() if depth <= opened_at]:
            del inside[kind]  # the walk has left that element
        if node.type == NodeType.ELEMENT:
            shape.elements += 1
            shape.depth = max(shape.depth, depth)
            kind = "skipped" if node.tag in SKIPPED else node.tag
            if kind in ("skipped", "a", "table"):
                inside.setdefault(kind, depth)
        elif node.type == NodeType.TEXT and "skipped" not in inside:
            length = len((node.value or "").strip())
            shape.characters += length
            shape.link_characters += length if "a" in inside else 0
            shape.table_characters += length if "table" in inside else 0

    if tree.body is not None:
        traverse_dom(tree.body, enter)
    return shape


def by_trafilatura(text: str, url: str | None) -> str:
    """trafilatura's main text; "" where it fails, since a page that breaks it is no reason to stop a crawl."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports every page that it cannot parse
    try:
        return tidy(trafilatura.extract(text, url=url, include_comments=False, favor_precision=True) or "")
    except Exception:  # whatever lxml or one of its extractors meets in a page: RecursionError, ValueError, MemoryError ...
        return ""


def by_resiliparse(tree: HTMLTree) -> str:
    """The page's main text by resiliparse, without alternative texts, link targets and forms."""
    text = extract_plain_text(tree, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False, list_bullets=True)
    return tidy(CELL_GAPS.sub(" ", EMPTY_CELLS.sub("", text.replace("\xa0", " "))))


def tidy(text: str) -> str:
    """Plain spaces, no blanks at line ends, one empty line at most."""
    lines = [line.rstrip() for line in text.replace("\xa0", " ").replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
