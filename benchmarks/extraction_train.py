"""Fits the block classifier of main-text extraction: python -m benchmarks.extraction_train FOLDER

FOLDER holds annotated pages as `benchmarks.extraction` reads them. A block that holds a wanted fragment is main text, one that is an
unwanted fragment is not; all other blocks are labelled, with a small part of the weight, by whether trafilatura keeps them. Pages of the
standard library (rendered by pydoc) and generated pages are added with known labels. Writes data_pipeline/web/extraction/weights.json,
fitted on all sites. `cross_validated` leaves out a fifth of the sites at a time, and nothing of a left-out site touches the weights or the
threshold that judge it.
"""

import argparse
import gzip
import hashlib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from data_pipeline.web.extract import MAX_DEPTH, MAX_ELEMENTS, shown
from data_pipeline.web.extraction import block_features, layout, page_scan
from data_pipeline.web.extraction.vocabulary import table
from data_pipeline.web.warc_reader import decoded

FOLDS = 5
GOLD_WEIGHT = 25.0
MOST_BLOCKS = 150  # of a page that only the teacher has labelled; more are drawn from
THRESHOLD = 0.45
SETTINGS = {
    "max_iter": 120, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": 20, "l2_regularization": 5.0, "max_features": 0.3,
    "random_state": 0,
}  # fmt: skip


@dataclass
class Blocks:
    """One page as the classifier sees it, with labels where there are any."""

    texts: list[str]
    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def joined(text: str) -> str:
    return " ".join(text.split())


def site_of(url: str) -> str:
    """The last two parts of the host's name."""
    host = re.split(r"[-_/]", url[6:])[0] if url.startswith("hard::") else urlsplit(url).hostname or url
    return ".".join(host.split(".")[-2:])


def fold_of(url: str) -> int:
    return int(hashlib.md5(site_of(url).encode()).hexdigest(), 16) % FOLDS


def blocks_of(html: bytes) -> Blocks:
    """A page's blocks without labels."""
    page = np.frombuffer(decoded(html).encode("utf-8", "replace"), np.uint8)
    text, blocks, bits, state = page_scan.scan(page, *table(), MAX_DEPTH, MAX_ELEMENTS)
    blocks, bits = shown(blocks, bits)
    rows = block_features.features(text, blocks, bits, state[layout.TOTAL : layout.TOTAL + 3], state[layout.CONTAINERS])
    texts = [joined(text[start:end].tobytes().decode("utf-8", "replace")) for start, end in blocks[:, :2]]
    return Blocks(texts, rows, np.zeros(len(texts)), np.zeros(len(texts)))


def trees_of(model: Any) -> dict[str, Any]:
    """A fitted model's trees as flat lists; both children of a node stand side by side."""
    columns: list[int] = []
    thresholds: list[float] = []
    left: list[int] = []
    values: list[float] = []
    starts: list[int] = []
    for (predictor,) in model._predictors:
        starts.append(len(columns))
        open_nodes = [(0, len(columns))]
        for filled in (columns, thresholds, left, values):
            filled.append(0)  # type: ignore[attr-defined]
        while open_nodes:
            source, place = open_nodes.pop()
            node = predictor.nodes[source]
            if node["is_leaf"]:
                columns[place], values[place] = -1, round(float(node["value"]), 4)
                continue
            columns[place], thresholds[place], left[place] = (
                int(node["feature_idx"]),
                float(np.float32(node["num_threshold"])),
                len(columns),
            )
            for child in (node["left"], node["right"]):
                open_nodes.append((int(child), len(columns)))
                for filled in (columns, thresholds, left, values):
                    filled.append(0)  # type: ignore[attr-defined]
    return {
        "columns": columns, "thresholds": [float(f"{one:.8g}") for one in thresholds], "left": left, "values": values, "starts": starts,
        "base": round(float(np.ravel(model._baseline_prediction)[0]), 5),
    }  # fmt: skip


def places(fragment: str, whole: str, offsets: np.ndarray) -> list[tuple[int, int]]:
    """The first and last block of each occurrence of a fragment."""
    found: list[tuple[int, int]] = []
    at = whole.find(fragment)
    while at >= 0 and len(found) < 50:
        first, last = np.searchsorted(offsets, [at, at + len(fragment) - 1], "right") - 1
        found.append((int(first), int(last)))
        at = whole.find(fragment, at + 1)
    return found


def label(page: Blocks, gold: dict[str, Any], teacher: str) -> None:
    """Labels and weights of an annotated page: the teacher's opinion first, then what is annotated."""
    texts = page.texts
    whole, offsets = " ".join(texts), np.cumsum([0] + [len(one) + 1 for one in texts])
    for i, one in enumerate(texts):
        kept = one in teacher if len(one) <= 160 else one[:60] in teacher or one[-60:] in teacher
        page.labels[i], page.weights[i] = kept, (0.3 if len(one) < 12 else 1.0) * min(1 + len(one) / 200, 2.0)
    for fragment in map(joined, gold["without"]):
        for first, last in places(fragment, whole, offsets):
            for i in range(first, last + 1):
                if last - first < 4 and 2 * len(fragment) >= len(texts[i]):
                    page.labels[i], page.weights[i] = 0, GOLD_WEIGHT
    for fragment in map(joined, gold["with"]):
        found = places(fragment, whole, offsets)
        likely = [one for one in found if page.labels[one[0] : one[1] + 1].mean() > 0.5] or found
        if likely:
            first, last = max(likely, key=lambda one: sum(map(len, texts[one[0] : one[1] + 1])))
            page.labels[first : last + 1], page.weights[first : last + 1] = 1, GOLD_WEIGHT
    annotated = page.weights == GOLD_WEIGHT
    page.weights /= np.sqrt(max(len(texts), 1) / 100)
    drawn(page, annotated)


def known_pages() -> list[Blocks]:
    """Pages whose labels are known because we make them: reference pages by pydoc, and generated pages with a menu and a footer."""
    from data_pipeline.web.collect import CollectRecipe
    from data_pipeline.web.generated_pages import generated_pages
    from data_pipeline.web.standard_library import library_pages, module_names

    found = []
    for one in library_pages(module_names()[::6], 10.0):
        if one.html:
            page = blocks_of(one.html.encode())
            page.labels[:], page.weights[:] = 1, 100 / max(len(page.texts), 100)
            found.append(page)
    recipe = CollectRecipe(spam=3, menus=3, exact_copies=0, near_copies=0, foreign=6, personal=6, stubs=3, symbols=2)
    for made in generated_pages(recipe, [], 1):
        page = blocks_of(made.html.encode())
        inside = made.html.partition("<article>")[2].partition("</article>")[0]
        body = joined(re.sub(r"<[^>]*>", " ", inside))
        page.labels[:] = [one in body and made.kind != "menu" for one in page.texts]
        page.weights[:] = 1
        found.append(page)
    for html, body in small_articles(60):
        page = blocks_of(html.encode())
        page.labels[:] = [one in body for one in page.texts]
        page.weights[:] = 1
        found.append(page)
    return found


def small_articles(count: int) -> list[tuple[str, str]]:
    """Pages of a few paragraphs, some of one short sentence, in plain or old-fashioned markup: (HTML, main text)."""
    from data_pipeline.web.generated_pages import sentences
    from data_pipeline.web.invented_words import ENGLISH, MENU

    found = []
    for number in range(count):
        chance = random.Random(f"small article {number}")
        lines = sentences(ENGLISH, chance, 14)
        title, parts = " ".join(lines[0].split()[:4]), []
        for _ in range(chance.randrange(1, 6)):
            size = chance.choice((1, 1, 2, 3))
            part, lines = " ".join(lines[:size]), lines[size:] or lines
            parts.append(" ".join(part.split()[: chance.choice((5, 6, 99, 99))]).rstrip(".") + ".")
        open_tag, close_tag = chance.choice(
            (("<article>", "</article>"), ("<main>", "</main>"), ('<div id="content">', "</div>"), ("", ""))
        )
        separator = chance.choice(("p", "p", "p", "div"))
        body = f"<h1>{title}</h1>" + "".join(f"<{separator}>{part}</{separator}>" for part in parts)
        links = "".join(f"<li><a href=/{one}>{one}</a>" for one in chance.sample(MENU, 5))
        nav = chance.choice((f"<nav><ul>{links}</ul></nav>", f"<div class=menu><ul>{links}</ul></div>", f"<ul>{links}</ul>"))
        foot = chance.choice(
            ("<footer>Imprint</footer>", "<footer><p>Copyright, all rights reserved</p></footer>", "<div>Contact | Terms</div>", "")
        )
        found.append((f"<html><body>{nav}{open_tag}{body}{close_tag}{foot}</body></html>", " ".join([title, *parts])))
    return found


def drawn(page: Blocks, annotated: np.ndarray) -> None:
    """Sets the weights of all but a sample of a long page's blocks to 0; what is annotated stays."""
    count = len(page.texts)
    if count > MOST_BLOCKS:
        kept = np.random.default_rng(count).random(count) < MOST_BLOCKS / count
        page.weights = np.where(annotated, page.weights, page.weights * kept * count / MOST_BLOCKS)


def fitted(pages: list[Blocks]) -> dict[str, Any]:
    """The trees fitted on the pages' labels, and the threshold."""
    rows, labels, weights = (np.concatenate([getattr(one, name) for one in pages]) for name in ("rows", "labels", "weights"))
    used = weights > 0
    model = HistGradientBoostingClassifier(**SETTINGS).fit(rows[used], labels[used], sample_weight=weights[used])
    return trees_of(model) | {"threshold": THRESHOLD, "features": block_features.FEATURES}


def cross_validated(gold: dict[str, Any], pages: dict[str, bytes]) -> dict[str, str]:
    """Each page's text by trees that were fitted without its site."""
    from data_pipeline.web.extract import extract_page
    from data_pipeline.web.extraction import classify

    blocks, known, texts = labelled(gold, pages), known_pages(), {}
    shipped = classify.weights
    try:
        for fold in range(FOLDS):
            inside = [name for name in gold if fold_of(gold[name]["url"]) == fold]
            model = classify.unpacked(fitted([blocks[name] for name in gold if name not in set(inside)] + known))
            classify.weights = lambda model=model: model  # type: ignore[assignment]
            texts |= {name: extract_page(pages[name]).text for name in inside}
    finally:
        classify.weights = shipped
    return texts


def read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    gold = json.loads((folder / "gold.json").read_text(encoding="utf-8"))
    return gold, {name: gzip.decompress((folder / "pages" / name).read_bytes()) for name in gold}


def labelled(gold: dict[str, Any], pages: dict[str, bytes]) -> dict[str, Blocks]:
    """The annotated pages with labels; trafilatura is asked once for each."""
    import trafilatura

    found = {}
    for name, html in pages.items():
        page = blocks_of(html)
        label(page, gold[name], joined(trafilatura.extract(decoded(html), include_comments=False) or ""))
        found[name] = page
    return found


def main() -> None:
    from data_pipeline.storage import write_json
    from data_pipeline.web.extraction.classify import WEIGHTS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    gold, pages = read(parser.parse_args().folder)
    blocks = labelled(gold, pages)
    write_json(WEIGHTS, fitted([*blocks.values(), *known_pages()]))


if __name__ == "__main__":
    main()
