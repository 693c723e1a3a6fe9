"""An HTTP response to its body: headers read forgivingly, transfer and content coding undone within bounds."""

import zlib

HEADER_BYTES = 65_536


def split_response(data: bytes) -> tuple[int | None, dict[str, str], bytes]:
    """(status, headers with names in lower case, body) of a stored response; (None, {}, data) where it does not begin like one."""
    if not data.startswith(b"HTTP/"):
        return None, {}, data
    end, gap = data.find(b"\r\n\r\n", 0, HEADER_BYTES), 4
    plain = data.find(b"\n\n", 0, end if end >= 0 else HEADER_BYTES)
    if plain >= 0:
        end, gap = plain, 2
    if end < 0:
        end, gap = min(len(data), HEADER_BYTES), 0
    first, *lines = data[:end].decode("latin-1").splitlines() or [""]
    parts = first.split(None, 2)
    status = int(parts[1]) if len(parts) > 1 and parts[1].isascii() and parts[1].isdecimal() else None
    return status, headers_of(lines), data[end + gap :]


def headers_of(lines: list[str]) -> dict[str, str]:
    """Header lines by name in lower case; folded lines are joined, of several of one name the values too."""
    found: dict[str, str] = {}
    last = ""
    for line in lines:
        if line[:1] in (" ", "\t") and last:
            found[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = name.strip().lower()
            found[last] = f"{found[last]}, {value.strip()}" if last in found else value.strip()
    return found


def content_type(headers: dict[str, str]) -> tuple[str, str]:
    """(media type in lower case, charset or "")."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = ""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'")
    return kind.strip().lower(), charset


def undone(body: bytes, headers: dict[str, str], max_bytes: int) -> bytes:
    """The body without chunked transfer coding and without content coding; as it is where it is not really coded so.

    At most one byte more than `max_bytes` is unpacked, so that a bomb stays small.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunked(body)
    for coding in reversed([one.strip().lower() for one in headers.get("content-encoding", "").split(",") if one.strip()]):
        body = decompressed(body, coding, max_bytes)
    return body


def dechunked(body: bytes) -> bytes:
    """RFC 9112, section 7.1; crawlers often store the body already joined, so a body that is not chunked is returned as it is."""
    parts: list[bytes] = []
    place = 0
    while True:
        line_end = body.find(b"\r\n", place, place + 64)
        try:
            size = int(body[place:line_end].partition(b";")[0].strip(), 16) if line_end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0:
            return b"".join([*parts, body[place:]]) if parts else body
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        place = line_end + 2 + size + 2


def decompressed(body: bytes, coding: str, max_bytes: int) -> bytes:
    """gzip, deflate or brotli undone; a body that is not packed so is returned as it is."""
    try:
        if coding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(body, max_bytes + 1)
        if coding == "deflate":
            try:
                return zlib.decompressobj().decompress(body, max_bytes + 1)
            except zlib.error:
                return zlib.decompressobj(wbits=-15).decompress(body, max_bytes + 1)
        if coding == "br":
            return unpacked_brotli(body, max_bytes)
    except zlib.error:
        return body
    return body


def unpacked_brotli(body: bytes, max_bytes: int) -> bytes:
    """Brotli, piece by piece; as it is without the package, or where it is none."""
    try:
        import brotli
    except ImportError:
        return body
    unpacker = brotli.Decompressor()
    try:
        found = unpacker.process(body, output_buffer_limit=max_bytes + 1)
        while len(found) <= max_bytes and not unpacker.is_finished() and not unpacker.can_accept_more_data():
            found += unpacker.process(b"", output_buffer_limit=max_bytes + 1 - len(found))
    except brotli.error:
        return body
    return found
