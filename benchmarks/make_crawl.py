"""A crawl whose right verdicts are known: python -m benchmarks.make_crawl OUT --bytes 1e9 --files 4 --seed 0

Writes OUT/crawl-NNNN.warc.gz (about `--bytes` of HTML in all), damaged.warc.gz, gold.jsonl, blocked_domains.txt and mmlu/ (questions that
contaminated pages hold). Pages are written as they are made; memory does not grow with the size. The same arguments give the same bytes.

A row of gold.jsonl: url, file, kind, expect ("keep", "drop", or "absent" for a record that cannot be read), text (the main text, where it
is to be kept), personal (strings that must not survive), hidden (strings that no reader would see), copy_of.
"""

import argparse
import csv
import gzip
import io
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.crawl_pages import BLOCKED, CrawlPage, Maker, questions
from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.warc_writer import WarcWriter

DAMAGED_PAGES = 40


def make(out: Path, size: int, files: int, seed: int, level: int = 1) -> dict[str, Any]:
    """Writes the folder and returns what is in it."""
    if files < 1 or size < 10_000:
        raise InputError(f"{out}: at least one file and 10,000 bytes are needed, got {files} and {size}")
    started, cpu = time.perf_counter(), time.process_time()
    asked = questions(seed)
    maker = Maker(seed, asked)
    kinds: dict[str, int] = {}
    written = 0
    with storage.atomic_folder(out) as folder, storage.atomic_write(folder / "gold.jsonl", "w") as gold:
        for number in range(files):
            name = f"crawl-{number:04d}.warc.gz"
            with storage.atomic_write(folder / name) as stream:
                writer = WarcWriter(stream, "a generated crawl", level=level)
                while written < size * (number + 1) / files:
                    page = maker.page()
                    html = page.html.encode()
                    writer.response(page.url, html, page.headers)
                    gold.write(gold_line(page, name))
                    written += len(html)
                    kinds[page.kind] = kinds.get(page.kind, 0) + 1
        for line in damaged(folder / "damaged.warc.gz", maker, seed):
            gold.write(line)
        (folder / "blocked_domains.txt").write_text("# domains that are to be dropped\n" + "".join(f"{one}\n" for one in BLOCKED))
        write_mmlu(folder / "mmlu", asked)
    seconds = time.process_time() - cpu
    return {
        "html_bytes": written,
        "pages": sum(kinds.values()),
        "kinds": dict(sorted(kinds.items())),
        "seconds": round(time.perf_counter() - started, 2),
        "megabytes_per_cpu_second": round(written / 1e6 / seconds, 1),
    }


def gold_line(page: CrawlPage, file: str, expect: str = "", kind: str = "") -> str:
    row = {"url": page.url, "file": file, "kind": kind or page.kind, "expect": expect or page.expect, "text": page.text}
    row |= {"personal": page.personal, "hidden": page.hidden, "copy_of": page.copy_of}
    return json.dumps(row, ensure_ascii=False) + "\n"


def damaged(path: Path, maker: Maker, seed: int) -> Iterator[str]:
    """Good pages with damaged records between them, each fourth; yields the rows of gold.jsonl."""
    chance = random.Random(f"{seed} damage")
    with storage.atomic_write(path) as stream:
        for number in range(DAMAGED_PAGES):
            page = maker.good()
            member = io.BytesIO()
            writer = WarcWriter(member, "a damaged file", level=1)
            if number:
                member.seek(0)
                member.truncate()
            writer.response(page.url, page.html.encode())
            data = member.getvalue()
            bad = number % 4 == 2
            stream.write(spoiled(data, number // 4, chance) if bad else data)
            yield gold_line(page, path.name, *(("absent", "damaged") if bad else ()))


def spoiled(data: bytes, way: int, chance: random.Random) -> bytes:
    """A gzip member with one record, damaged in one of five ways."""
    middle = len(data) // 2
    if way % 5 == 0:  # the member is cut
        return data[:middle]
    if way % 5 == 1:  # its bytes are others
        return data[:middle] + bytes(chance.randrange(256) for _ in range(64)) + data[middle + 64 :]
    record = gzip.decompress(data)
    head, mark, block = record.partition(b"\r\n\r\n")
    length = len(block) - 4
    told = f"Content-Length: {length}".encode()
    if way % 5 == 2:  # the length is too large
        record = head.replace(told, f"Content-Length: {length * 3}".encode()) + mark + block
    elif way % 5 == 3:  # it is too small
        record = head.replace(told, f"Content-Length: {length // 2}".encode()) + mark + block
    else:  # there is none, and zeros are in its place
        record = head.replace(told, b"\x00" * 40) + mark + block
    return gzip.compress(record, compresslevel=1, mtime=0)


def write_mmlu(folder: Path, asked: list[list[str]]) -> None:
    """The questions in MMLU's original layout: dev, val and test, no header."""
    for split, rows in (("dev", asked[:5]), ("val", asked[5:15]), ("test", asked[15:])):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        (folder / split).mkdir(parents=True)
        (folder / split / f"miscellaneous_{split}.csv").write_text(text.getvalue(), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=int, default=1, choices=range(10), help="of gzip; 0 stores, which is fastest")
    arguments = parser.parse_args()
    print(json.dumps(make(arguments.out, int(arguments.bytes), arguments.files, arguments.seed, arguments.level), indent=1))


if __name__ == "__main__":
    main()
