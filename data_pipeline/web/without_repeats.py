"""A text without the paragraphs that stood in it before."""

import re

PARAGRAPHS = re.compile(r"\n[^\S\n]*\n")


def without_repeats(text: str) -> str:
    """Each paragraph once: reference pages list the same inherited methods under every class."""
    return "\n\n".join(dict.fromkeys(part.strip("\n") for part in PARAGRAPHS.split(text)))
