"""The main text of a web page: one pass over its bytes into blocks, a small classifier over them, and the kept ones as plain text.

No tree of the page is built and nothing recurses, so pages of any depth and size take time in proportion to their bytes.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.web.reading.bodies import decoded

# Up to these sizes a page's structure is followed: deeper elements count as part of the deepest, later blocks join the last one, and
# bytes past the last limit are not read.
MAX_ELEMENTS = 100_000  # blocks
MAX_DEPTH = 2_000
MAX_BYTES = 256_000_000
# When fewer characters than this are kept, and less than this share of the page's text outside links, the classifier has missed the page.
MIN_CHARACTERS, MIN_COVERAGE = 300, 0.1


@dataclass(frozen=True)
class Extraction:
    """The main text, how it was found, and what was measured on the way."""

    text: str
    method: str  # "blocks" (the classifier), "all" (every block that is not mostly links), and "none" where there is no text
    why: str = ""  # "depth", "elements" or "size": past a limit; "coverage": why not by the classifier
    link_density: float = 0.0
    elements: int = 0
    depth: int = 0


def extract(html: bytes, url: str | None = None) -> str:
    """The main text of a page, "" when there is none. Charset: byte-order mark, the page's declaration, else detected. Never raises."""
    return extract_page(html, url=url).text


def extract_page(html: bytes, charset: str = "", url: str | None = None) -> Extraction:
    """As `extract`, with how the text was found. `charset` is what the HTTP header declared, if anything; `url` decides nothing."""
    from data_pipeline.web.extraction import block_features, classify, layout, page_scan
    from data_pipeline.web.extraction.render import render
    from data_pipeline.web.extraction.vocabulary import table

    if not html.strip():
        return Extraction("", "none")
    page = np.frombuffer(decoded(html[:MAX_BYTES], charset).encode("utf-8", "replace"), np.uint8)
    text, blocks, bits, state = page_scan.scan(page, *table(), MAX_DEPTH, MAX_ELEMENTS)
    blocks, bits = shown(blocks, bits)
    total, links = int(state[layout.TOTAL]), int(state[layout.LINK_TOTAL])
    measured = {
        "link_density": links / total if total else 0.0,
        "elements": int(state[layout.ELEMENTS]),
        "depth": int(state[layout.DEPTH]),
    }
    if not len(blocks):
        return Extraction("", "none", **measured)
    why = (
        "size"
        if len(html) > MAX_BYTES
        else "depth"
        if measured["depth"] >= MAX_DEPTH
        else "elements"
        if len(blocks) == MAX_ELEMENTS
        else ""
    )
    rows = block_features.features(text, blocks, bits, state[layout.TOTAL : layout.TOTAL + 3], state[layout.CONTAINERS])
    model = classify.weights()
    kept = classify.judged(rows, model) > model[6]
    method = "blocks"
    if blocks[kept, layout.CHARS].sum() < min(MIN_CHARACTERS, MIN_COVERAGE * (total - links)):
        kept, method, why = 2 * blocks[:, layout.LINK_CHARS] < blocks[:, layout.CHARS], "all", "coverage"
    found = render(text.tobytes(), blocks[kept])
    return Extraction(found, method if found else "none", why if found else "", **measured)


def shown(blocks: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The blocks without those kept from screen readers, unless these are most of the page."""
    from data_pipeline.web.extraction.layout import ARIA, B_CONTEXT, CHARS

    silent = bits[:, B_CONTEXT] & ARIA != 0
    if not silent.any() or blocks[silent, CHARS].sum() * 2 > blocks[:, CHARS].sum():
        return blocks, bits
    return blocks[~silent], bits[~silent]
