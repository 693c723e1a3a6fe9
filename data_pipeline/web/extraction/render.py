"""Blocks to plain text: paragraphs apart by an empty line, list items on lines, table rows on lines with their cells apart by tabs."""

import numpy as np

from data_pipeline.web.extraction.layout import C_TAG, END, ITEM, LIST_DEPTH, PARENT, ROW, START, TABLE
from data_pipeline.web.extraction.vocabulary import TAGS

CELLS = (TAGS["td"], TAGS["th"])


def render(text: bytes, blocks: np.ndarray) -> str:
    """The text of the given blocks (rows of `page_scan.scan`), in order."""
    parts: list[str] = []
    before: list[int] | None = None
    lines_before = False
    for row in blocks[:, : LIST_DEPTH + 1].tolist():
        piece = text[row[START] : row[END]].decode("utf-8", "replace")
        has_lines = "\n" in piece
        if before is not None:
            parts.append(gap(before, row, lines_before or has_lines))
        if row[ITEM] and (before is None or before[ITEM] != row[ITEM]):
            parts.append("  " * (row[LIST_DEPTH] - 1) + "- ")
        parts.append(piece)
        before, lines_before = row, has_lines
    return "".join(parts)


def gap(before: list[int], row: list[int], lines: bool) -> str:
    """What stands between two blocks."""
    if before[C_TAG] in CELLS and row[C_TAG] in CELLS and before[TABLE] == row[TABLE]:
        return "\t" if before[ROW] == row[ROW] and not lines else "\n"
    if before[ITEM] and row[ITEM] and (before[ITEM] == row[ITEM] or before[PARENT] == row[PARENT] or before[LIST_DEPTH] != row[LIST_DEPTH]):
        return "\n"
    return "\n\n"
