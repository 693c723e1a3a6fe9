"""Verdicts on a crawl of `make_crawl`: python -m benchmarks.check_crawl CRAWL WEB [--out FILE]

CRAWL has gold.jsonl, WEB is a built folder (kept.parquet, held_out.parquet where there is one, dropped.parquet). Says per kind how many
verdicts are wrong and what became of the pages, how many personal and hidden strings survived, and how much of the gold text was found:
the mean share of a page's gold words in the text and of the text's words in the gold (multisets), over kept pages with gold text.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

from data_pipeline.errors import InputError
from data_pipeline.provenance import provenance
from data_pipeline.storage import read_json_lines, write_json


def rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise InputError(f"{path}: no such file; a folder that `phial data build` wrote is needed")
    file = pyarrow.parquet.ParquetFile(path)
    for batch in file.iter_batches(columns=[one for one in columns if one in file.schema_arrow.names]):
        yield from batch.to_pylist()


def check(crawl: Path, web: Path) -> dict[str, Any]:
    """The comparison. An address that stands twice in the crawl is judged by all its rows: each verdict is used once."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows(web / "dropped.parquet", ["url", "reason"]):
        reasons[row["url"]].append(row["reason"])
    kept: dict[str, list[str]] = defaultdict(list)
    for name in ("kept.parquet", "held_out.parquet"):
        if name == "kept.parquet" or (web / name).exists():
            for row in rows(web / name, ["url", "text"]):
                kept[row["url"]].append(row["text"])
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    fates: dict[str, Counter[str]] = defaultdict(Counter)
    survived = Counter({"personal": 0, "hidden": 0})
    recalls: list[float] = []
    precisions: list[float] = []
    for gold in read_json_lines(crawl / "gold.jsonl"):
        url, expect = gold["url"], gold["expect"]
        text = kept[url].pop() if kept[url] and (expect == "keep" or not reasons[url]) else None
        reason = reasons[url].pop() if text is None and reasons[url] else None
        fate = "keep" if text is not None else "drop" if reason is not None else "absent"
        kinds[gold["kind"]]["pages"] += 1
        kinds[gold["kind"]]["wrong"] += fate != expect
        fates[gold["kind"]][reason or fate] += 1
        if text is not None:
            for name in survived:
                survived[name] += sum(one in text for one in gold[name])
            if gold["text"]:
                recall, precision = overlap(gold["text"], text)
                recalls.append(recall)
                precisions.append(precision)
    left = sum(map(len, kept.values())) + sum(map(len, reasons.values()))
    table = {kind: dict(counts) | {"verdicts": dict(fates[kind].most_common())} for kind, counts in sorted(kinds.items())}
    return {
        "kinds": table,
        "pages": sum(counts["pages"] for counts in kinds.values()),
        "wrong": sum(counts["wrong"] for counts in kinds.values()),
        "not_in_gold": left,
        "survived": dict(survived),
        "gold_words_found": round(sum(recalls) / max(1, len(recalls)), 4),
        "found_words_in_gold": round(sum(precisions) / max(1, len(precisions)), 4),
    }


def overlap(gold: str, text: str) -> tuple[float, float]:
    """Shares of gold words found, and of found words that are gold."""
    one, two = Counter(gold.split()), Counter(text.split())
    both = (one & two).total()
    return both / max(1, one.total()), both / max(1, two.total())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crawl", type=Path)
    parser.add_argument("web", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = check(arguments.crawl, arguments.web)
    for kind, counts in record["kinds"].items():
        print(f"{kind:14} {counts['wrong']:7,} wrong of {counts['pages']:8,}   {counts['verdicts']}")
    print(json.dumps({name: value for name, value in record.items() if name != "kinds"}))
    if arguments.out:
        write_json(arguments.out, record | provenance("trafilatura", "resiliparse"))


if __name__ == "__main__":
    main()
