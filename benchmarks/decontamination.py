"""Decontamination on planted pages: python -m benchmarks.decontamination FOLDER... [--whole ALL] [--peer-python PYTHON]

FOLDERs hold benchmark files. Pages are the texts of the standard library's documentation, into some of which items are planted: word for
word, with a word put in, with a word exchanged, wrapped to short lines, as answers alone; and traps, fifteen words of an item that stand
on many pages as a common phrase does. What is planted is known, so precision and recall are counted, with and without the guard by
document frequency. PYTHON has datatrove, whose filter is timed on the same pages, in turns with ours; ALL is a larger folder whose index
is only timed. Writes benchmarks/results/decontamination.json; seconds are CPU seconds of one process.
"""

import argparse
import importlib
import json
import pydoc
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.benchmark_items import Item, benchmark_items
from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.decontamination.decide import decide
from data_pipeline.web.decontamination.index import BenchmarkIndex, Hits
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.measures import hashes_of, measure

RESULTS = Path(__file__).parent / "results" / "decontamination.json"
PEER = Path(__file__).with_name("decontamination_peer.py")
LEFT_OUT = {"antigravity", "this", "idlelib", "turtledemo", "__main__"}
PAGE_CHARACTERS = 3_000
EACH = 100  # pages per way of planting
TRAPS, TRAP_PAGES = 4, 40
DIRTY = ("verbatim", "embedded", "short lines", "a word put in", "a word exchanged")


def library_pages() -> list[str]:
    """Pieces of the standard library's documentation."""
    pages = []
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        if name.startswith("_"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = pydoc.plaintext.document(importlib.import_module(name))  # type: ignore[attr-defined]
        except Exception:  # modules of other systems
            continue
        pages += [text[start : start + PAGE_CHARACTERS] for start in range(0, len(text), PAGE_CHARACTERS)]
    return pages


def changed(words: list[str], chance: random.Random, exchange: bool) -> str:
    """A word put in after every nine to twelve words, or exchanged: no thirteen words stay in a row."""
    out, until = [], chance.randrange(9, 13)
    for word in words:
        if not until:
            until = chance.randrange(9, 13)
            out.append("something")
            if exchange:
                continue
        out.append(word)
        until -= 1
    return " ".join(out)


def planted(items: list[Item], pages: list[str], chance: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, text) of every page; background pages have the kind ''."""
    pool = [item for item in items if 20 <= len(hashes_of(item.question)) <= 80]
    chosen = chance.sample(pool, len(DIRTY) * EACH)
    for number, item in enumerate(chosen):
        kind = DIRTY[number % len(DIRTY)]
        text = f"{item.question}\n{item.answer}"
        words = text.split()
        page = chance.choice(pages)
        half = page.rfind(" ", 0, len(page) // 2)
        if kind == "verbatim":
            yield kind, text
        elif kind == "embedded":
            yield kind, f"{page[:half]} {text} {page[half:]}"
        elif kind == "short lines":
            yield kind, "\n".join(" ".join(words[start : start + 6]) for start in range(0, len(words), 6))
        else:
            yield kind, f"{page[:half]} {changed(words, chance, kind == 'a word exchanged')} {page[half:]}"
    for item in chance.sample([item for item in items if 1 <= len(hashes_of(item.answer)) <= 4], EACH):
        yield "answer alone", f"{chance.choice(pages)} {item.answer}"
    for item in chance.sample(pool, TRAPS):
        phrase = " ".join(item.question.split()[2:17])
        for page in chance.sample(pages, TRAP_PAGES):
            yield "trap", f"{page[:1500]} {phrase} {page[1500:]}"
    yield from (("", page) for page in pages)


def counted(kinds: list[str], flagged: set[int]) -> dict[str, Any]:
    """Precision and recall over pages, and pages flagged per kind."""
    truth = {number for number, kind in enumerate(kinds) if kind in DIRTY}
    hits = len(truth & flagged)
    names = dict.fromkeys(kinds)
    per_kind = {name or "background": [sum(kinds[number] == name for number in flagged), kinds.count(name)] for name in names}
    return {"precision": round(hits / max(len(flagged), 1), 4), "recall": round(hits / len(truth), 4), "flagged_of": per_kind}


def ours(index: BenchmarkIndex, texts: list[str]) -> tuple[list[Hits], dict[str, float]]:
    """The hits of all pages, from texts and from word hashes that exist already."""
    started = time.process_time()
    hits = [index.match_text(text) for text in texts]
    from_texts = time.process_time() - started
    hashes = [measure(text)[1] for text in texts]
    started = time.process_time()
    for one in hashes:
        index.match(one)
    from_hashes = time.process_time() - started
    started = time.process_time()
    decide(index, hits)
    return hits, {"from_texts": from_texts, "from_word_hashes": from_hashes, "decide": time.process_time() - started}


def whole(folder: str, texts: list[str], megabytes: float) -> dict[str, Any]:
    """A larger index: how long it takes to read and to build, and what it costs the search."""
    started = time.process_time()
    items = list(benchmark_items(folder))
    read = time.process_time() - started
    index = BenchmarkIndex.of(items, Decontamination())
    built = time.process_time() - started - read
    spent = ours(index, texts)[1]
    speeds = {f"megabytes_per_cpu_second_{name}": round(megabytes / spent[name], 1) for name in ("from_texts", "from_word_hashes")}
    return {"items": len(items), "ngrams": len(index.keys), "read_seconds": round(read, 2), "build_seconds": round(built, 2), **speeds}


def compare(peer: str, folder: Path, index: BenchmarkIndex, texts: list[str], kinds: list[str], rounds: int) -> dict[str, Any]:
    """datatrove and ours in turns."""
    theirs, mine = [], []
    found: dict[str, Any] = {}
    for _ in range(rounds):
        mine.append(ours(index, texts)[1]["from_texts"])
        answer = subprocess.run([peer, str(PEER), str(folder)], capture_output=True, text=True, check=True)
        found = {**json.loads(answer.stdout.splitlines()[-1]), "index": found.get("index")}
        theirs.append(found["seconds"]["filter"])
        found["index"] = found["seconds"].get("index", found["index"])
    return {
        "versions": found["versions"],
        "index_seconds": round(found["index"], 2),
        "filter_seconds": [round(one, 2) for one in theirs],
        "our_seconds": [round(one, 3) for one in mine],
        "times_faster": round(min(theirs) / min(mine), 1),
        **counted(kinds, set(found["flagged"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--peer-python")
    parser.add_argument("--whole")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    settings = Decontamination(benchmarks=tuple(arguments.folders))
    first = Item(task="t", split="", id="0", question="compiled before it is timed " * 4, answer="")
    BenchmarkIndex.of([first], settings).match_text("compiled before it is timed " * 4)
    items: list[Item] = []
    for folder in arguments.folders:
        items += benchmark_items(folder)
    started = time.process_time()
    index = BenchmarkIndex.of(items, settings)
    seconds = {"index": time.process_time() - started}
    rows = list(planted(items, library_pages(), random.Random(11)))
    kinds, texts = [kind for kind, _ in rows], [text for _, text in rows]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    hits, spent = ours(index, texts)
    seconds |= spent
    plain = [text for kind, text in rows if not kind]
    plain_megabytes = sum(len(text.encode()) for text in plain) / 1e6
    plain_speed = round(plain_megabytes / ours(index, plain)[1]["from_word_hashes"], 1)
    unguarded = settings.model_copy(update={"max_document_frequency": len(texts)})
    record: dict[str, Any] = {
        **provenance("numba", "numpy"),
        "benchmarks": {"items": len(items), "ngrams": len(index.keys), "searchable": round(float(index.searchable().mean()), 4)},
        "pages": {"count": len(texts), "megabytes": round(megabytes, 2), "truth": "planted, so known; traps and changes are simulated"},
        "cpu_seconds": {name: round(value, 3) for name, value in seconds.items()},
        "megabytes_per_cpu_second": {name: round(megabytes / seconds[name], 1) for name in ("from_texts", "from_word_hashes")},
        "megabytes_per_cpu_second_on_pages_without_items": {"from_word_hashes": plain_speed},
        "with_guard": counted(kinds, set(decide(index, hits, settings).pages)),
        "without_guard": counted(kinds, set(decide(index, hits, unguarded).pages)),
    }
    if arguments.whole:
        record["whole"] = whole(arguments.whole, texts, megabytes)
    if arguments.peer_python:
        with tempfile.TemporaryDirectory() as name:
            for file, lines in (
                ("items.jsonl", [{"question": item.question, "answer": item.answer} for item in items]),
                ("documents.jsonl", [{"text": text} for text in texts]),
            ):
                (Path(name) / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            record["datatrove"] = compare(arguments.peer_python, Path(name), index, texts, kinds, arguments.rounds)
    write_json(RESULTS, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
