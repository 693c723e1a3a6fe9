"""A page's bytes as text."""

from resiliparse.parse.encoding import bytes_to_str, detect_encoding


def decoded(html: bytes, charset: str = "") -> str:
    """The page as text: byte-order mark, then the HTTP header's charset, then the page's own declaration, then detection."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if html.startswith(mark):
            return html[len(mark) :].decode(name, errors="replace")
    for name in (charset.strip("\"' "), detect_encoding(html, from_html_meta=True) or "utf-8", "utf-8"):
        try:
            if name:
                return bytes_to_str(html, name)
        except (LookupError, ValueError):  # a charset that nobody knows
            continue
    return html.decode("utf-8", errors="replace")
