"""Main-text extraction on annotated pages: python -m benchmarks.extraction FOLDER

FOLDER holds gold.json ({file: {"url", "with": [...], "without": [...]}}) and pages/ (gzip). A fragment counts as found when it stands in
the text after white space was made equal; precision, recall and F1 are over all fragments, and a page that an extractor fails on counts
as missed. "phial" is judged by cross-validation: its classifier is fitted anew for each fifth of the sites on the other four, and the
shipped weights, fitted on all sites, are scored beside it ("phial, as shipped": sites it has seen). The interval of the difference to
trafilatura is a paired bootstrap over sites. Times are CPU seconds of one process, with the shipped weights, extractors taking turns page
by page. Writes benchmarks/results/extraction.json.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from benchmarks.extraction_train import cross_validated, joined, read, site_of
from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.duplicates import signature
from data_pipeline.web.extract import extract_page
from data_pipeline.web.language import language_of
from data_pipeline.web.measures import measure
from data_pipeline.web.personal_data import mask
from data_pipeline.web.reading.bodies import decoded
from data_pipeline.web.recipe import Duplicates

RESULTS = Path(__file__).parent / "results" / "extraction.json"

VARIANTS: dict[str, Callable[[bytes], str]] = {
    "phial, as shipped": lambda html: extract_page(html).text,
    "trafilatura": lambda html: trafilatura.extract(decoded(html), include_comments=False) or "",
    "trafilatura, with comments": lambda html: trafilatura.extract(decoded(html)) or "",
    "trafilatura, precision": lambda html: trafilatura.extract(decoded(html), include_comments=False, favor_precision=True) or "",
    "trafilatura, fast": lambda html: trafilatura.extract(decoded(html), include_comments=False, fast=True) or "",
    "resiliparse": lambda html: resiliparse(html),
}


def resiliparse(html: bytes) -> str:
    """Its main text without alternative texts, link targets and forms."""
    tree = HTMLTree.parse(decoded(html))
    return extract_plain_text(tree, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False)


def counts(texts: dict[str, str], gold: dict[str, Any]) -> np.ndarray:
    """Per page: wanted fragments found and missed, unwanted ones found and left out: int [pages, 4]."""
    found = []
    for name, page in gold.items():
        text = joined(texts[name])
        wanted, unwanted = (sum(joined(part) in text for part in page[kind]) for kind in ("with", "without"))
        found.append((wanted, len(page["with"]) - wanted, unwanted, len(page["without"]) - unwanted))
    return np.array(found)


def scores(found: np.ndarray) -> dict[str, float]:
    """Micro precision, recall, F1 and accuracy over all fragments."""
    hits, misses, false_hits, left_out = found.sum(0).tolist()
    figures = {
        "precision": hits / max(hits + false_hits, 1),
        "recall": hits / max(hits + misses, 1),
        "f1": 2 * hits / max(2 * hits + misses + false_hits, 1),
        "accuracy": (hits + left_out) / found.sum().item(),
    }
    return {name: round(figure, 4) for name, figure in figures.items()}


def difference(ours: np.ndarray, theirs: np.ndarray, sites: list[str], draws: int = 10_000) -> dict[str, Any]:
    """F1 of ours minus theirs with its 95 % interval: a paired bootstrap over sites (percentiles)."""
    names = sorted(set(sites))
    of_site = np.zeros((len(names), len(sites)))
    of_site[[names.index(one) for one in sites], range(len(sites))] = 1
    chance = np.random.default_rng(0)
    weights = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), draws) @ of_site

    def f1(found: np.ndarray) -> np.ndarray:
        hits, misses, false_hits, _ = (weights @ found).T
        return 2 * hits / (2 * hits + misses + false_hits)

    low, high = np.percentile(f1(ours) - f1(theirs), [2.5, 97.5])
    point = scores(ours)["f1"] - scores(theirs)["f1"]
    return {"f1": round(point, 4), "low": round(float(low), 4), "high": round(float(high), 4), "sites": len(names), "draws": draws}


def timed(pages: dict[str, bytes]) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """Every extractor's texts and CPU seconds; they take turns on each page."""
    texts: dict[str, dict[str, str]] = {name: {} for name in VARIANTS}
    seconds = dict.fromkeys(VARIANTS, 0.0)
    for page, html in pages.items():
        for name, extractor in VARIANTS.items():
            started = time.process_time()
            texts[name][page] = extractor(html)
            seconds[name] += time.process_time() - started
    return texts, seconds


def parts(texts: list[str]) -> dict[str, float]:
    """Megabytes of text per CPU second of what follows extraction."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    measured: dict[str, float] = {}
    hashes: list[Any] = []

    def clocked(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        measured[name] = round(megabytes / (time.process_time() - started), 2)
        return result

    clocked("language", lambda: [language_of(text) for text in texts])
    clocked("personal data", lambda: [mask(text) for text in texts])
    hashes = clocked("all quality values", lambda: [measure(text)[1] for text in texts])
    clocked("MinHash signatures", lambda: [signature(one, Duplicates()) for one in hashes])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    gold, pages = read(parser.parse_args().folder)
    for extractor in VARIANTS.values():  # loads models, compiles
        extractor(b"<html><body><p>loads its models</p></body></html>")
    texts, seconds = timed(pages)
    megabytes = sum(map(len, pages.values())) / 1e6
    found = {"phial": counts(cross_validated(gold, pages), gold)} | {name: counts(one, gold) for name, one in texts.items()}
    results = {name: scores(one) for name, one in found.items()}
    for name, spent in seconds.items():
        results[name] |= {"pages_per_cpu_second": round(len(pages) / spent, 1), "megabytes_per_cpu_second": round(megabytes / spent, 2)}
    sites = [site_of(page["url"]) for page in gold.values()]
    how = Counter(" ".join(filter(None, (one.method, one.why))) for one in map(extract_page, pages.values()))
    record = {
        **provenance("trafilatura", "resiliparse", "lxml", "numba", "scikit-learn"),
        "pages": len(pages),
        "html_megabytes": round(megabytes, 1),
        "extractors": results,
        "phial_minus_trafilatura": difference(found["phial"], found["trafilatura"], sites),
        "speed_against_trafilatura": round(seconds["trafilatura"] / seconds["phial, as shipped"], 2),
        "phial_took": dict(how),
        "megabytes_of_text_per_cpu_second": parts(list(texts["phial, as shipped"].values())),
    }
    write_json(RESULTS, record)
    print(json.dumps(record, indent=1), RESULTS)


if __name__ == "__main__":
    main()
