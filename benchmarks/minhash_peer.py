"""datatrove's side of benchmarks/minhash.py, run by the Python that has it: PEER_PYTHON minhash_peer.py TASK FOLDER

signatures: texts.json to JSON lines on stdout with CPU seconds; equal: tokens and signatures of each hash; clusters: stages 2 and 3 over
FOLDER/signatures, with CPU seconds and the documents of each cluster. Prints one JSON object on the last line.
"""

import importlib
import json
import struct
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HASHES = [("xxhash", 64), ("xxhash", 32), ("sha1", 64), ("sha1", 32)]


def minhash() -> Any:
    return importlib.import_module("datatrove.pipeline.dedup.minhash")


def signer(folder: Path, hash: str = "xxhash", precision: int = 64) -> Any:
    hashing = importlib.import_module("datatrove.utils.hashing")
    config = minhash().MinhashConfig(hash_config=hashing.HashConfig(precision=precision, hash_fc=hash))
    return minhash().MinhashDedupSignature(str(folder / "unused"), config)


def flat(bands: list[list[int]]) -> list[int]:
    return [value for band in bands for value in band]


def signatures(folder: Path) -> dict[str, Any]:
    """CPU seconds of shingles and of signatures."""
    texts, step = json.loads((folder / "texts.json").read_text()), signer(folder)
    step.get_signature(step.get_shingles(texts[0]))
    started = time.process_time()
    shingles = [step.get_shingles(text) for text in texts]
    between = time.process_time()
    for one in shingles:
        if one.size:
            step.get_signature(one)
    return {"shingles": between - started, "signatures": time.process_time() - between}


def equal(folder: Path) -> dict[str, Any]:
    """The tokens of each text, and its signature by each hash; None where there is none."""
    texts, found = json.loads((folder / "some.json").read_text()), {}
    simplify = importlib.import_module("datatrove.utils.text").simplify_text
    for hash, precision in HASHES:
        step = signer(folder, hash, precision)
        shingles = [step.get_shingles(text) for text in texts]
        found[f"{hash} {precision}"] = [flat(step.get_signature(one)) if one.size else None for one in shingles]
    words = [list(step.word_tokenizer.word_tokenize(simplify(text, step.config.norm_config))) for text in texts]
    return {"words": words, "signatures": found, "versions": {name: version(name) for name in ("datatrove", "spacy", "numpy")}}


def pairs(folder: Path) -> dict[str, Any]:
    texts, step = json.loads((folder / "pairs.json").read_text()), signer(folder)
    return {"signatures": [flat(step.get_signature(step.get_shingles(text))) for text in texts]}


def clusters(folder: Path) -> dict[str, Any]:
    """Stages 2 and 3 over FOLDER/signatures: CPU seconds, and [document, cluster] of each that is in one."""
    module = minhash()
    started = time.process_time()
    for band in range(14):
        module.MinhashDedupBuckets(str(folder / "signatures"), str(folder / "dups"), config=module.MinhashConfig()).run(None, band, 14)
    between = time.process_time()
    module.MinhashDedupCluster(str(folder / "dups"), str(folder / "removed"), config=module.MinhashConfig(), save_cluster_id=True).run(
        None, 0, 1
    )
    ended = time.process_time()
    raw = (folder / "removed" / "000000.clusters").read_bytes()
    return {"stage2": between - started, "stage3": ended - between, "clusters": list(struct.iter_unpack("<2I", raw))}


if __name__ == "__main__":
    print(json.dumps({"signatures": signatures, "equal": equal, "pairs": pairs, "clusters": clusters}[sys.argv[1]](Path(sys.argv[2]))))
