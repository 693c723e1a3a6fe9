"""What is known of a page besides its words: robots, licence, language, snapshot. Cheap looks at headers and the beginning of the page."""

import re
from collections.abc import Mapping

HEAD = 4096  # bytes of a page that are looked at

TAG = re.compile(rb"<(meta|link|a)\b([^>]{0,2000})>", re.IGNORECASE)
ATTRIBUTE = re.compile(rb"""([a-zA-Z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
LICENCE_ADDRESS = re.compile(rb"https?://creativecommons\.org/(?:licenses|publicdomain)/[a-z0-9./+-]+", re.IGNORECASE)
SNAPSHOT = re.compile(r"CC-MAIN-\d{4}-\d{2}")


def metadata_of(headers: Mapping[str, str], html: bytes, snapshot: str) -> dict[str, str]:
    """`robots`, `licence`, `language` and `snapshot`, those that are known. `headers`: HTTP headers by their names in lower case."""
    found: dict[str, str] = {}
    robots = [headers.get("x-robots-tag", "").strip()]
    head = html[:HEAD]
    lower = head.lower()
    # Most pages say nothing of either, and the words are found faster than the tags.
    for tag in TAG.finditer(head) if b"robots" in lower or b"license" in lower else ():
        kind = tag[1].lower()
        parts = {one[1].lower(): (one[2] or one[3] or one[4] or b"") for one in ATTRIBUTE.finditer(tag[2])}
        if kind == b"meta" and parts.get(b"name", b"").strip().lower() == b"robots":
            robots.append(plain(parts.get(b"content", b"")))
        elif b"license" in parts.get(b"rel", b"").lower().split() and "licence" not in found:
            found["licence"] = plain(parts.get(b"href", b""))
    if not found.get("licence") and b"creativecommons.org" in lower and (address := LICENCE_ADDRESS.search(head)):
        found["licence"] = plain(address[0])
    values = {
        "robots": ", ".join(one.lower() for one in robots if one),
        "licence": found.get("licence", ""),
        "language": headers.get("content-language", "").strip(),
        "snapshot": snapshot,
    }
    return {name: value[:300] for name, value in values.items() if value}


def plain(data: bytes) -> str:
    return data.decode("utf-8", errors="replace").strip()


def snapshot_of(path: str) -> str:
    """The snapshot that a path names; "" where it names none."""
    found = SNAPSHOT.search(path)
    return found[0] if found else ""
