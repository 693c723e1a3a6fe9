"""WARC files: what is written is read back; broken files give their good records and one line; other files are refused in one line."""

import gzip
import http.server
import io
import threading
import zlib
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.warc_reader import Broken, Page, decoded, has_pages, read_pages
from data_pipeline.web.warc_writer import WarcWriter, digest

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "warc"
PAGES = [
    (f"http://site.example/{number}", f"<html><body><p>Page {number} {'text ' * 400}</p></body></html>".encode()) for number in range(5)
]


def warc_bytes() -> bytes:
    stream = io.BytesIO()
    writer = WarcWriter(stream, "a test")
    for url, html in PAGES:
        writer.response(url, html)
    return stream.getvalue()


def one_record(head: str, body: bytes, url: str = "http://site.example/") -> bytes:
    """A WARC file of one uncompressed response record with HTTP headers of the caller's."""
    block = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body
    lines = ["WARC/1.0", "WARC-Type: response", f"WARC-Target-URI: {url}", "WARC-Date: 2020-01-01T00:00:00Z", "WARC-Record-ID: <urn:a:b>"]
    lines += ["Content-Type: application/http; msgtype=response", f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"


def read(tmp_path: Path, data: bytes, name: str = "a.warc.gz", max_bytes: int = 1_000_000) -> tuple[list[Page], list[str]]:
    (tmp_path / name).write_bytes(data)
    found = list(read_pages(str(tmp_path / name), max_bytes))
    return [one for one in found if isinstance(one, Page)], [one.line for one in found if isinstance(one, Broken)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pages, broken = read(tmp_path, warc_bytes())
    assert [(page.url, page.html, page.charset) for page in pages] == [(url, html, "utf-8") for url, html in PAGES]
    assert not broken
    assert len({page.id for page in pages}) == 5


def test_the_file_is_standard_warc() -> None:
    data = warc_bytes()
    member = zlib.decompressobj(wbits=31)
    first = member.decompress(data)
    assert first.startswith(b"WARC/1.1\r\nWARC-Type: warcinfo\r\n")
    second = zlib.decompressobj(wbits=31).decompress(member.unused_data)  # one gzip member per record
    head, _, block = second.partition(b"\r\n\r\n")
    assert b"WARC-Payload-Digest: " + digest(PAGES[0][1]).encode() in head
    assert f"Content-Length: {len(block) - 4}".encode() in head
    assert data == warc_bytes()


def test_a_truncated_file_gives_its_good_records_and_one_line(tmp_path: Path) -> None:
    data = warc_bytes()
    starts = [place for place in range(len(data)) if data[place : place + 4] == b"\x1f\x8b\x08\x00"]
    assert len(starts) == 6
    # In a header, in a body, in the gzip trailer (the record's own bytes are all there), in the last record.
    for cut, whole in ((starts[4] + 5, 3), (starts[4] + 60, 3), (starts[5] - 3, 4), (starts[5] + 20, 4)):
        pages, broken = read(tmp_path, data[:cut])
        assert [page.url for page in pages] == [url for url, _ in PAGES[:whole]], cut
        assert len(broken) == 1
        assert "truncated" in broken[0]
        assert "a.warc.gz" in broken[0]
        assert "\n" not in broken[0]
    assert read(tmp_path, data[: starts[4]])[1] == []  # a cut between two records leaves a whole file


def test_a_truncated_plain_file(tmp_path: Path) -> None:
    data = gzip.decompress(warc_bytes())
    pages, broken = read(tmp_path, data[:-1500], "a.warc")
    assert len(pages) == 4
    assert len(broken) == 1
    assert "truncated" in broken[0]


def test_a_damaged_record_costs_itself_and_one_line(tmp_path: Path) -> None:
    data = bytearray(warc_bytes())
    starts = [place for place in range(len(data)) if data[place : place + 4] == b"\x1f\x8b\x08\x00"]
    data[starts[3] + 30 : starts[3] + 60] = b"\xff" * 30
    pages, broken = read(tmp_path, bytes(data))
    assert [page.url for page in pages] == [url for number, (url, _) in enumerate(PAGES) if number != 2]
    assert len(broken) == 1


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("noise.warc", bytes(range(256)) * 16, "not a WARC file"),
        ("empty.warc", b"", "an empty file"),
        ("bad.warc.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00" + b"\xff" * 200, "not a WARC file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path, data, name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_pages(str(tmp_path / "none.warc")))
    with pytest.raises(InputError, match="a folder"):
        list(read_pages(str(tmp_path)))


def test_a_file_without_responses_has_no_pages(tmp_path: Path) -> None:
    stream = io.BytesIO()
    WarcWriter(stream, "only this")
    (tmp_path / "a.warc.gz").write_bytes(stream.getvalue())
    assert not has_pages(str(tmp_path / "a.warc.gz"))


def test_codings_are_undone(tmp_path: Path) -> None:
    html = b"<html><body><p>Some text.</p></body></html>"
    packed = gzip.compress(html)
    chunks = b"5\r\n" + packed[:5] + b"\r\n" + f"{len(packed) - 5:x}".encode() + b"\r\n" + packed[5:] + b"\r\n0\r\n\r\n"
    cases = {
        "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n": chunks,
        "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n ": packed,  # stored joined, as many crawlers do
        "Content-Encoding: deflate\r\n": zlib.compress(html),
        "Content-Encoding: gzip\r\n": html,  # says so, but is not
    }
    for head, body in cases.items():
        pages, broken = read(tmp_path, one_record(f"Content-Type: text/html\r\n{head.rstrip(' ')}", body), "a.warc")
        assert [page.html for page in pages] == [html], head
        assert not broken


def test_a_bomb_stays_small(tmp_path: Path) -> None:
    body = gzip.compress(b"<p>" + b" " * 20_000_000)
    pages, _ = read(tmp_path, one_record("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", body), "a.warc", max_bytes=100_000)
    assert pages[0].problem == "too_large"
    assert pages[0].value == 100_001  # read no further than one byte past the limit
    assert pages[0].html == b""


def test_pages_that_are_no_pages(tmp_path: Path) -> None:
    image, _ = read(tmp_path, one_record("Content-Type: image/png\r\n", b"\x89PNG"), "a.warc")
    assert image[0].problem == "not_html"
    moved, _ = read(tmp_path, one_record("", b"").replace(b"200 OK", b"404 NO"), "a.warc")
    assert (moved[0].problem, moved[0].value) == ("http_status", 404.0)


def test_angle_brackets_around_the_address(tmp_path: Path) -> None:
    pages, _ = read(tmp_path, one_record("Content-Type: text/html\r\n", b"<p>x", "<http://site.example/a>"), "a.warc")
    assert pages[0].url == "http://site.example/a"


def test_charsets() -> None:
    assert decoded("<p>Grüße".encode("latin-1"), "iso-8859-1") == "<p>Grüße"
    assert decoded('<meta charset="windows-1252"><p>Grüße – ja'.encode("cp1252")).endswith("Grüße – ja")
    assert decoded(b"\xef\xbb\xbf<p>Gr\xc3\xbc\xc3\x9fe", "iso-8859-1") == "<p>Grüße"  # the byte-order mark wins
    assert decoded("<p>日本語".encode("shift_jis"), "shift_jis") == "<p>日本語"
    assert "Hello" in decoded(b"<p>Hello \xff\xfe", "no-such-charset")


@pytest.mark.skipif(not SAMPLES.exists(), reason="the malformed WARC samples are not on this machine")
def test_malformed_samples_never_raise_anything_else() -> None:
    seen = {}
    for path in sorted(SAMPLES.iterdir()):
        try:
            found = list(read_pages(str(path)))
        except InputError as error:
            seen[path.name] = f"refused: {error}"
            continue
        seen[path.name] = f"{sum(isinstance(one, Page) for one in found)} pages, {sum(isinstance(one, Broken) for one in found)} broken"
    assert seen["example.warc.gz"] == "2 pages, 0 broken"
    assert seen["example-trunc.warc"] == "0 pages, 1 broken"  # its only page is two bytes short
    assert seen["crawl-sample-0000.warc.gz"].endswith("pages, 1 broken") or seen["crawl-sample-0000.warc.gz"].endswith("pages, 0 broken")


class Answer(http.server.BaseHTTPRequestHandler):
    """A server that names the size of its file or, as many do, does not."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = self.path in ("/whole.warc.gz", "/stream.warc.gz", "/cut.warc.gz")
        data = warc_bytes()[: -200 if self.path == "/cut.warc.gz" else None]
        self.send_response(200 if found else 404)
        if self.path != "/stream.warc.gz":
            self.send_header("Content-Length", str(len(data) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_files_on_a_web_server() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        for name in ("whole", "stream"):
            found = list(read_pages(f"{base}/{name}.warc.gz"))
            assert [one.url for one in found if isinstance(one, Page)] == [url for url, _ in PAGES]
        assert isinstance(list(read_pages(f"{base}/cut.warc.gz"))[-1], Broken)
        with pytest.raises(InputError, match=r"none\.warc\.gz"):
            list(read_pages(f"{base}/none.warc.gz"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(InputError, match=r"cannot be opened|reading failed"):
        list(read_pages(f"{base}/whole.warc.gz"))  # nobody listens any more


def test_whole_files_are_read_as_fastwarc_reads_them(tmp_path: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    for name, data in (("a.warc.gz", warc_bytes()), ("a.warc", gzip.decompress(warc_bytes()))):
        pages, broken = read(tmp_path, data, name)
        with open(tmp_path / name, "rb") as stream:
            records = [
                (record.headers["WARC-Target-URI"], record.reader.read())
                for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True)
            ]
        assert [(page.url, page.html) for page in pages] == records
        assert len(records) == 5
        assert not broken
