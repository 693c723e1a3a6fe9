"""WARC files, written: WARC/1.1, one gzip member per record, bytes a function of the pages alone.

Dates and record ids are derived from the content, not from the clock, so the same pages give the same file.
"""

import base64
import gzip
import hashlib
import uuid
from typing import IO

# A file that is a function of its pages has no moment of fetching; warcinfo says so.
DATE = "2000-01-01T00:00:00Z"


class WarcWriter:
    """Writes records to a binary stream."""

    def __init__(self, stream: IO[bytes], description: str, level: int = 6) -> None:
        self.stream, self.level = stream, level  # gzip's level: 1 is fast, 9 small
        self.records = 0
        info = f"software: phial\r\nformat: WARC File Format 1.1\r\ndescription: {description}\r\n".encode()
        self.write("warcinfo", "", "application/warc-fields", info, None)

    def response(self, url: str, html: bytes, headers: str = "") -> None:
        """One page as an HTTP response, HTML in UTF-8. `headers`: more header lines, each with its line break."""
        told = f"Content-Type: text/html; charset=utf-8\r\nContent-Length: {len(html)}\r\n{headers}"
        head = f"HTTP/1.1 200 OK\r\n{told}\r\n".encode("ascii")
        self.write("response", url, "application/http; msgtype=response", head + html, html)

    def write(self, kind: str, url: str, content_type: str, block: bytes, payload: bytes | None) -> None:
        """One record: header lines, an empty line, the block, two line breaks; digests are SHA-1 in base 32, as crawlers write them."""
        name = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind} {self.records} {url}")
        lines = ["WARC/1.1", f"WARC-Type: {kind}", f"WARC-Record-ID: <urn:uuid:{name}>", f"WARC-Date: {DATE}"]
        if url:
            lines.append(f"WARC-Target-URI: {url}")
        lines.append(f"WARC-Block-Digest: {digest(block)}")
        if payload is not None:
            lines.append(f"WARC-Payload-Digest: {digest(payload)}")
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(block)}", "", ""]
        record = "\r\n".join(lines).encode("utf-8") + block + b"\r\n\r\n"
        self.stream.write(gzip.compress(record, compresslevel=self.level, mtime=0))
        self.records += 1


def digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode("ascii")
