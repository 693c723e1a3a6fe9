"""Archives: every format gives its pages, damage of every kind costs its own record, and a reader goes on from any place."""

import gzip
import io
import re
import tracemalloc
import zlib
from pathlib import Path

import pyarrow
import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.reading import Broken, Page, Place, ReadLimits, names_of, read_records
from data_pipeline.web.reading.raw import Raw

SAMPLES = Path(__file__).resolve().parents[5] / "shared" / "data" / "warc"
SMALL = ReadLimits(max_page_bytes=200_000, max_record_bytes=3_000_000)


def http(body: bytes, head: str = "Content-Type: text/html; charset=utf-8\r\n") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body


def record(number: int, block: bytes | None = None, length: int | str | None = None, kind: str = "response", extra: str = "") -> bytes:
    block = http(f"<html><body><p>Page {number} {'word ' * 300}</p></body></html>".encode()) if block is None else block
    told = len(block) if length is None else length
    lines = ["WARC/1.1", f"WARC-Type: {kind}", f"WARC-Target-URI: http://site.example/{number}", "WARC-Date: 2024-05-01T00:00:00Z"]
    lines += ["Content-Type: application/http", *([extra] if extra else []), f"Content-Length: {told}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"


INFORMATION = record(0, b"software: a test\r\nisPartOf: CC-MAIN-2024-22\r\n", kind="warcinfo")


def packed(parts: list[bytes], coding: str) -> bytes:
    if coding == "gzip":
        return b"".join(gzip.compress(one, mtime=0) for one in parts)
    if coding == "one member":
        return gzip.compress(b"".join(parts), mtime=0)
    if coding == "blocks":  # as bgzip cuts, anywhere
        whole = b"".join(parts)
        return b"".join(gzip.compress(whole[place : place + 700], mtime=0) for place in range(0, len(whole), 700))
    if coding == "zstd":
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(b"".join(parts))
        return sink.getvalue().to_pybytes()
    return b"".join(parts)


CODINGS = ("plain", "gzip", "one member", "blocks", "zstd")


def read(path: Path, data: bytes, limits: ReadLimits = SMALL) -> list[Page | Broken]:
    """All of a file; each place gives exactly the rest."""
    path.write_bytes(data)
    found = list(read_records(str(path), limits=limits))
    for number in {0, 1, len(found) // 2, len(found) - 2, len(found) - 1} & set(range(len(found))):
        place = Place(**found[number].place.as_dict())
        assert list(read_records(str(path), limits=limits, start=place)) == found[number + 1 :], (number, place)
    return found


def numbers(found: list[Page | Broken]) -> list[int]:
    return [int(one.url.rpartition("/")[2]) for one in found if isinstance(one, Page) and not one.problem]


def broken(found: list[Page | Broken]) -> list[str]:
    return [one.line for one in found if isinstance(one, Broken)]


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_gives_the_same_pages_and_goes_on_from_each_place(tmp_path: Path, coding: str) -> None:
    found = read(tmp_path / "a.warc", packed([INFORMATION, *(record(number) for number in range(1, 8))], coding))
    assert numbers(found) == list(range(1, 8))
    assert not broken(found)
    pages = [one for one in found if isinstance(one, Page)]
    assert len({one.id for one in pages}) == 7
    assert {(one.charset, one.fetched, one.metadata["snapshot"]) for one in pages} == {("utf-8", "2024-05-01T00:00:00Z", "CC-MAIN-2024-22")}
    assert pages[2].place.record == 4


def test_a_place_behind_a_member_is_the_next_members_beginning(tmp_path: Path) -> None:
    parts = [record(number) for number in range(1, 4)]
    found = read(tmp_path / "a.warc.gz", packed(parts, "gzip"))
    first = len(gzip.compress(parts[0], mtime=0))
    assert (found[0].place.offset, found[0].place.inside) == (first, 0)  # a seek, nothing is unpacked twice
    assert f":{first}:2" in found[1].id  # type: ignore[union-attr]


DAMAGES = {
    "noise": lambda data: b"\xff" * len(data),
    "too long": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: 5000", data),
    "far too long": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: 2900000", data),
    "too short": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: 700", data),
    "no number": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: many", data),
    "negative": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: -5", data),
    "no length": lambda data: re.sub(rb"Content-Length: \d+\r\n", b"", data),
    "zeros": lambda data: b"\x00" * len(data),
    "cut": lambda data: data[:600],
    "endless header": lambda data: data.replace(b"WARC-Date", b"X: " + str(list(range(60_000))).encode() + b"\r\nWARC-Date"),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_record_costs_itself_only(tmp_path: Path, damage: str, coding: str) -> None:
    parts = [record(number) for number in range(1, 7)]
    parts[2] = DAMAGES[damage](parts[2])
    found = read(tmp_path / "a.warc", packed(parts, coding))
    assert numbers(found) == [1, 2, 4, 5, 6]
    if damage != "zeros" or coding != "gzip":
        assert len(broken(found)) == 1
    assert all("\n" not in line and "a.warc" in line for line in broken(found))


@pytest.mark.parametrize("damage", ["cut", "bytes", "checksum", "garbage between", "two cut"])
def test_damaged_gzip_members(tmp_path: Path, damage: str) -> None:
    members = [gzip.compress(record(number), mtime=0) for number in range(1, 8)]
    third = members[2]
    lost = [3]
    if damage == "cut":
        members[2] = third[: len(third) // 2]
    elif damage == "bytes":
        members[2] = third[:60] + b"\xff" * 30 + third[90:]
    elif damage == "checksum":
        members[2] = third[:-8] + bytes([third[-8] ^ 1]) + third[-7:]
    elif damage == "garbage between":
        members[2] = b"garbage" * 50 + third
        lost = []
    else:
        members[2], members[3], lost = third[:-30], members[3][:-30], [3, 4]
    found = read(tmp_path / "a.warc.gz", b"".join(members))
    assert numbers(found) == [one for one in range(1, 8) if one not in lost]
    assert len(broken(found)) == max(1, len(lost))


def test_damage_within_one_large_member_keeps_what_stands_before_it(tmp_path: Path) -> None:
    data = bytearray(
        gzip.compress(b"".join(record(number, http(f"<p>{zlib.crc32(bytes([number]))}".encode() * 99)) for number in range(200)), mtime=0)
    )
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff" * 40
    found = read(tmp_path / "a.warc.gz", bytes(data))
    assert 20 < len(numbers(found)) < 199
    assert numbers(found) == list(range(len(numbers(found))))
    assert len(broken(found)) == 1
    # A later place, of a record near the damage, gives the same rest: what is lost does not hang on where reading began.
    near = found[-3]
    assert list(read_records(str(tmp_path / "a.warc.gz"), limits=SMALL, start=near.place)) == found[-2:]


def test_a_file_that_begins_damaged_is_read_behind_it(tmp_path: Path) -> None:
    members = [gzip.compress(record(number), mtime=0) for number in range(1, 4)]
    assert numbers(read(tmp_path / "a.warc.gz", members[0][:50] + members[1] + members[2])) == [2, 3]
    assert numbers(read(tmp_path / "b.warc", b"\xff" * 5000 + b"\n" + record(2) + record(3))) == [2, 3]


def test_many_broken_records_are_told_up_to_a_hundred_and_counted(tmp_path: Path) -> None:
    parts = [record(number, length="x" if number % 2 else None) for number in range(300)]
    for coding in ("gzip", "plain"):
        found = read(tmp_path / "a.warc", packed(parts, coding))
        assert numbers(found) == list(range(0, 300, 2))
        lines = [one for one in found if isinstance(one, Broken)]
        assert len(lines) == 101
        assert sum(one.count for one in lines) == 150
        assert found[-1].place.broken == 150


def test_a_failing_store_is_no_damage(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match=r"reading failed.*Input/output"):
        Raw(Failing(b"WARC/1.1"), "s3://x/a.warc").read()


def test_giant_records_take_little_memory(tmp_path: Path) -> None:
    """A page of 200 MB, plain and as a bomb in a gzip member; a bomb in a content coding; NUL bytes; a record with a giant length."""
    size = 200_000_000
    head = http(b"")
    start = record(2, b"", length=size + len(head))[:-4] + head
    with open(tmp_path / "plain.warc", "wb") as stream:
        stream.write(record(1) + start)
        stream.truncate(stream.tell() + size)  # NUL bytes
        stream.seek(0, 2)
        stream.write(b"\r\n\r\n" + record(3))
    unit = zlib.compressobj(9, wbits=31)
    member = unit.compress(start) + b"".join(unit.compress(b" " * 1_000_000) for _ in range(40)) + unit.flush()
    (tmp_path / "bomb.warc.gz").write_bytes(gzip.compress(record(1)) + member + gzip.compress(record(3)))
    coded = http(gzip.compress(b"<p>" + b" " * 30_000_000), "Content-Type: text/html\r\nContent-Encoding: gzip\r\n")
    (tmp_path / "coded.warc").write_bytes(record(1) + record(2, coded) + record(3))
    huge = record(2, length=10**15)
    (tmp_path / "huge.warc").write_bytes(record(1) + huge + record(3))
    tracemalloc.start()
    for name in ("plain.warc", "bomb.warc.gz", "coded.warc", "huge.warc"):
        found = list(read_records(str(tmp_path / name), limits=ReadLimits(max_page_bytes=1_000_000)))
        assert numbers(found) == [1, 3], name
        assert [one.problem for one in found if isinstance(one, Page)] == ["", "too_large", ""], name
        assert not broken(found)
        assert list(read_records(str(tmp_path / name), limits=ReadLimits(max_page_bytes=1_000_000), start=found[1].place)) == found[2:]
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()


def test_hostile_bodies(tmp_path: Path) -> None:
    chunked = "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"
    bodies = [
        http(b"<p>" + b"\x00" * 5000),
        http(b"ffffffffffffffff\r\n<p>text\r\n-5\r\nzz", chunked),
        http(b"1\r\n<\r\n" * 20_000, chunked),
        http(b"<p>x", "X: " + "y" * 300_000 + "\r\n"),
        http(b"<p>plain", "Content-Type: text/html\r\nContent-Encoding: " + "gzip, " * 500 + "br\r\n"),
        b"",
        b"HTTP/1.1 200 OK",
        b"HTTP/9 what\r\n\r\n<html>",
    ]
    found = read(tmp_path / "a.warc", b"".join(record(number, body) for number, body in enumerate(bodies)))
    assert len(found) == len(bodies)
    assert not broken(found)
    assert [one.problem for one in found if isinstance(one, Page)][:5] == ["", "", "", "bad_http", ""]


def test_metadata_of_headers_and_pages(tmp_path: Path) -> None:
    html = (
        b'<html><head><meta NAME="robots" content="NoIndex"><link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
        b"</head><body><p>x</body></html>"
    )
    block = http(html, "Content-Type: text/html\r\nX-Robots-Tag: noarchive\r\nContent-Language: de\r\n")
    (page,) = read(tmp_path / "a.warc", record(1, block))
    assert isinstance(page, Page)
    assert page.metadata == {"robots": "noarchive, noindex", "licence": "https://creativecommons.org/licenses/by/4.0/", "language": "de"}


def test_wet_records_have_text(tmp_path: Path) -> None:
    data = packed([record(1, "Grüße aus dem Tal".encode(), kind="conversion", extra="WARC-Identified-Content-Language: deu")], "gzip")
    (page,) = read(tmp_path / "a.warc.wet.gz", data)
    assert isinstance(page, Page)
    assert (page.text, page.html, page.metadata["language"]) == ("Grüße aus dem Tal", b"", "deu")


@pytest.mark.parametrize("coding", ["plain", "gzip"])
def test_arc_files(tmp_path: Path, coding: str) -> None:
    def line(url: str, block: bytes, length: str = "") -> bytes:
        return f"{url} 192.0.2.1 20140216050221 text/html {length or len(block)}\n".encode() + block + b"\n"

    head = b"1 0 A test\nURL IP-address Archive-date Content-type Archive-length\n"
    page = http(b"<html><body><p>old</p></body></html>")
    parts = [line("filedesc://a.arc", head), line("http://site.example/a b?c=d e/1", page), line("http://site.example/2", page, "abc")]
    parts += [line("http://site.example/3", page, "7"), line("http://site.example/4", page)]
    found = read(tmp_path / "a.arc", packed(parts, coding))
    assert numbers(found) == [1, 4]
    assert len(broken(found)) == 2
    assert found[0].url == "http://site.example/a b?c=d e/1"  # type: ignore[union-attr]
    assert found[0].fetched == "2014-02-16T05:02:21Z"  # type: ignore[union-attr]


def test_names_are_short_and_distinct() -> None:
    assert names_of(["/x/a.warc", "/y/b.warc"]) == ["a.warc", "b.warc"]
    assert names_of(["/x/a.warc", "/y/a.warc", "/z/c.warc"]) == ["x/a.warc", "y/a.warc", "c.warc"]
    same = names_of(["s3://one/a", "s3://one/a", "/one/a", "a"])
    assert len(set(same)) == 4


def own_count(data: bytes) -> list[bytes]:
    """The target addresses of whole response and resource records: an own parser, which trusts every good length."""
    whole = b""
    while data[:2] == b"\x1f\x8b":
        unit = zlib.decompressobj(wbits=31)
        whole += unit.decompress(data)
        data = unit.unused_data
    data = whole or data
    found = []
    for begin in re.finditer(rb"(?:\A|\n)WARC/1\.\d\r?\n(.*?)\r?\n\r?\n", data, re.DOTALL):
        lines = dict(re.findall(rb"(?m)^([\w-]+):[ \t]*(.*?)\r?$", begin[1]))
        length = int(lines[b"Content-Length"])
        behind = data[begin.end() + length :]
        if lines[b"WARC-Type"] in (b"response", b"resource", b"revisit") and re.match(rb"(\r?\n)+(WARC/|\Z)", behind):
            found.append(lines[b"WARC-Target-URI"].strip(b"<> "))
    return found


@pytest.mark.skipif(not SAMPLES.exists(), reason="the malformed WARC samples are not on this machine")
def test_all_good_records_of_the_malformed_samples_are_read() -> None:
    for path in sorted(SAMPLES.iterdir()):
        if "arc" in path.suffixes[0] and "warc" not in path.name:
            continue
        found = [one.url.encode() for one in read_records(str(path)) if isinstance(one, Page)]
        assert found == own_count(path.read_bytes()), path.name
