"""Main-text extraction on annotated pages: python -m benchmarks.extraction FOLDER

FOLDER holds gold.json ({file: {"url", "with": [...], "without": [...]}}) and pages/ (gzip). A fragment counts as found when it stands in
the text after white space was made equal; precision, recall and F1 are over all fragments, and a page that an extractor fails on counts
as missed. Writes benchmarks/results/extraction.json. Times are CPU seconds of one process.
"""

import argparse
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trafilatura
from resiliparse.parse.html import HTMLTree

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.duplicates import signature
from data_pipeline.web.extract import by_resiliparse, extract_page
from data_pipeline.web.language import language_of
from data_pipeline.web.measures import measure
from data_pipeline.web.personal_data import mask
from data_pipeline.web.recipe import Duplicates
from data_pipeline.web.reading.bodies import decoded

RESULTS = Path(__file__).parent / "results" / "extraction.json"

VARIANTS: dict[str, Callable[[bytes], str]] = {
    "phial": lambda html: extract_page(html).text,
    "trafilatura": lambda html: trafilatura.extract(decoded(html), include_comments=False) or "",
    "trafilatura, with comments": lambda html: trafilatura.extract(decoded(html)) or "",
    "trafilatura, precision": lambda html: trafilatura.extract(decoded(html), include_comments=False, favor_precision=True) or "",
    "trafilatura, fast": lambda html: trafilatura.extract(decoded(html), include_comments=False, fast=True) or "",
    "resiliparse": lambda html: by_resiliparse(HTMLTree.parse(decoded(html))),
}


def joined(text: str) -> str:
    return " ".join(text.split())


def score(texts: dict[str, str], gold: dict[str, Any]) -> dict[str, float]:
    """Micro precision, recall, F1 and accuracy over all fragments."""
    wanted = [joined(part) in joined(texts[name]) for name, page in gold.items() for part in page["with"]]
    unwanted = [joined(part) in joined(texts[name]) for name, page in gold.items() for part in page["without"]]
    hits, false_hits, misses = sum(wanted), sum(unwanted), len(wanted) - sum(wanted)
    precision, recall = hits / max(hits + false_hits, 1), hits / max(hits + misses, 1)
    accuracy = (hits + len(unwanted) - false_hits) / (len(wanted) + len(unwanted))
    figures = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-9), "accuracy": accuracy}
    return {name: round(figure, 4) for name, figure in figures.items()}


def run(pages: dict[str, bytes], gold: dict[str, Any], extractor: Callable[[bytes], str]) -> tuple[dict[str, float], dict[str, str]]:
    """Scores and speed of one extractor, and its texts."""
    started = time.process_time()
    texts = {name: extractor(html) for name, html in pages.items()}
    seconds = time.process_time() - started
    megabytes = sum(map(len, pages.values())) / 1e6
    speed = {"pages_per_cpu_second": round(len(pages) / seconds, 1), "megabytes_per_cpu_second": round(megabytes / seconds, 2)}
    return score(texts, gold) | speed, texts


def parts(texts: list[str]) -> dict[str, float]:
    """Megabytes of text per CPU second of what follows extraction."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    measured: dict[str, float] = {}
    hashes: list[Any] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        measured[name] = round(megabytes / (time.process_time() - started), 2)
        return result

    timed("language", lambda: [language_of(text) for text in texts])
    timed("personal data", lambda: [mask(text) for text in texts])
    hashes = timed("all quality values", lambda: [measure(text)[1] for text in texts])
    timed("MinHash signatures", lambda: [signature(one, Duplicates()) for one in hashes])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    gold = json.loads((folder / "gold.json").read_text(encoding="utf-8"))
    pages = {name: gzip.decompress((folder / "pages" / name).read_bytes()) for name in gold}
    trafilatura.extract("<html><body><p>loads its models</p></body></html>")
    results: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name, extractor in VARIANTS.items():
        results[name], found = run(pages, gold, extractor)
        texts = texts or found
        print(f"{name:28}", results[name], flush=True)
    how = Counter(" ".join(filter(None, (one.method, one.why))) for one in map(extract_page, pages.values()))
    record = {
        **provenance("trafilatura", "resiliparse", "lxml"),
        "pages": len(pages),
        "html_megabytes": round(sum(map(len, pages.values())) / 1e6, 1),
        "extractors": results,
        "phial_took": dict(how),
        "megabytes_of_text_per_cpu_second": parts(list(texts.values())),
    }
    write_json(RESULTS, record)
    print(json.dumps(record["megabytes_of_text_per_cpu_second"]), RESULTS)


if __name__ == "__main__":
    main()
