"""datatrove's n-gram decontamination on prepared files; run by benchmarks.decontamination with a Python that has datatrove.

FOLDER holds items.jsonl and documents.jsonl. Its indexer would load tasks through lighteval after hashing what it was given, so its own
`compute_hashes` is called and its index file written here; the filter is datatrove's as it is. Prints one JSON object; seconds are CPU
seconds.
"""

# pyright: reportMissingImports=false

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer


def main() -> None:
    folder = Path(sys.argv[1])
    config = NGramsDecontConfig(n_grams=13, find_query_ngrams=True)
    NGramsDecontIndexer._requires_dependencies = []
    index = folder / "peer_index"
    seconds = {}
    if not index.exists():
        index.mkdir()
        indexer = NGramsDecontIndexer(str(index), config=config)
        started = time.process_time()
        hashes: set[int] = set()
        for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            hashes.update(indexer.compute_hashes(item["answer"], item["question"]))
        np.array(list(hashes), dtype=config.hash_config.np_descr).tofile(index / "all.index.hashes")
        seconds["index"] = time.process_time() - started
    texts = [json.loads(line)["text"] for line in (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    keep = NGramsDecontFilter(str(index), config=config)
    keep.filter(Document(text="a first text, so that everything is loaded", id="0"))
    started = time.process_time()
    flagged = [number for number, text in enumerate(texts) if keep.filter(Document(text=text, id=str(number))) is not True]
    seconds["filter"] = time.process_time() - started
    versions = {name: version(name) for name in ("datatrove", "spacy")}
    print(json.dumps({"seconds": seconds, "flagged": flagged, "versions": versions}))


if __name__ == "__main__":
    main()
