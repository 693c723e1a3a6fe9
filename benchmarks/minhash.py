"""Signatures, pairs and clusters of near duplicates, beside datatrove: python -m benchmarks.minhash --pages FOLDER --peer-python PATH

FOLDER/pages holds HTML pages (gzip), of whose text signatures are made. PATH is a Python that has `datatrove[processing]` and spacy. Both
sides use 5-word shingles and 14 bands of 8; datatrove its 64-bit xxhash. Measured are CPU seconds, the sides in turn. Signatures: text to
signature, words included. Pairs: texts with planted Jaccard similarities. Clusters: generated signatures (nothing of this part is text), by
stages 2 and 3 on --peer-documents and a quarter of them. Writes benchmarks/results/minhash.json; exit code 1 where results differ.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from resiliparse.extract.html2text import extract_plain_text

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.duplicates import ClusterBuilder, Duplicates, signature
from data_pipeline.web.duplicates.clustering import clusters
from data_pipeline.web.duplicates.interchange import interchange_signature, write_interchange
from data_pipeline.web.duplicates.loops import mix_in
from data_pipeline.web.duplicates.signatures import collision_probability
from data_pipeline.web.measures import hashes_of

RESULTS = Path(__file__).parent / "results" / "minhash.json"
SETTINGS = Duplicates()
ANY = SETTINGS.model_copy(update={"threshold": 1e-9})  # an equal band is enough, as for datatrove
PLACES, BATCH, COPIES, CHANGED = 112, 20_000, 0.3, 0.05
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PAIRS = 200
PEER_STEP = 4  # datatrove's scaling is seen between a quarter of the documents and all


def peer(python: str, task: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("minhash_peer.py")
    done = subprocess.run([python, str(script), task, str(folder)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} {script} {task}: {done.stderr[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])


def our_signatures(texts: list[str]) -> dict[str, float]:
    """CPU seconds of words with their hashes, and of signatures."""
    signature(hashes_of("compiled"), SETTINGS)
    started = time.process_time()
    hashes = [hashes_of(text) for text in texts]
    between = time.process_time()
    for one in hashes:
        signature(one, SETTINGS)
    return {"shingles": between - started, "signatures": time.process_time() - between}


def measure_signatures(texts: list[str], python: str, folder: Path, rounds: int) -> dict[str, Any]:
    (folder / "texts.json").write_text(json.dumps(texts))
    megabytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
    times: dict[str, list[dict[str, float]]] = {"phial": [], "datatrove": []}
    for _ in range(rounds):
        times["phial"].append(our_signatures(texts))
        times["datatrove"].append(peer(python, "signatures", folder))
    speed = {side: {part: megabytes / min(one[part] for one in runs) for part in runs[0]} for side, runs in times.items()}
    total = {side: megabytes / min(sum(one.values()) for one in runs) for side, runs in times.items()}
    return {
        "texts": len(texts),
        "megabytes": round(megabytes, 2),
        "rounds": rounds,
        "megabytes_per_cpu_second": {side: round(value, 2) for side, value in total.items()},
        "words_and_shingles_alone": {side: round(parts["shingles"], 2) for side, parts in speed.items()},
        "permutations_alone": {side: round(parts["signatures"], 2) for side, parts in speed.items()},
        "ratio": round(total["phial"] / total["datatrove"], 1),
    }


def check_equal(texts: list[str], python: str, folder: Path) -> dict[str, Any]:
    """Interchange signatures of datatrove's tokens against its own, place by place."""
    (folder / "some.json").write_text(json.dumps(texts))
    found = peer(python, "equal", folder)
    record: dict[str, Any] = {"versions": found["versions"]}
    for name, theirs in found["signatures"].items():
        hash, precision = name.split()
        ours = [interchange_signature(words, SETTINGS, hash, int(precision)) for words in found["words"]]  # type: ignore[arg-type]
        same = [
            (one is None and other is None) or (one is not None and one.tolist() == other) for one, other in zip(ours, theirs, strict=True)
        ]
        record[name] = {"texts": len(same), "equal": sum(same)}
    return record


def planted() -> tuple[list[list[str]], list[tuple[int, float]]]:
    """Documents of letters-only words, two by two; for each pair its first document and the exact Jaccard similarity of its shingles."""
    chance, documents, truth = random.Random(3), [], []

    def word() -> str:
        return "".join(chance.choices("bcdfghjklmnpqrstvwxz", k=7))  # no vowels: no abbreviation or contraction is met

    for level in LEVELS:
        for _ in range(PAIRS):
            one = [word() for _ in range(300)]
            shared = round((len(one) - 4) * 2 * level / (1 + level))  # of 296 shingles each
            other = one[: shared + 4] + [word() for _ in range(len(one) - shared - 4)]
            grams = [set(zip(*(words[start:] for start in range(5)), strict=False)) for words in (one, other)]
            truth.append((len(documents), len(grams[0] & grams[1]) / len(grams[0] | grams[1])))
            documents += [one, other]
    return documents, truth


def colliding(signatures: np.ndarray) -> set[tuple[int, int]]:
    """All pairs of documents that agree in a whole band, by a dictionary per band."""
    found: set[tuple[int, int]] = set()
    for band in range(SETTINGS.bands):
        groups: dict[bytes, list[int]] = {}
        for place, row in enumerate(signatures[:, band * SETTINGS.rows : (band + 1) * SETTINGS.rows]):
            group = groups.setdefault(row.tobytes(), [])
            found.update((other, place) for other in group)
            group.append(place)
    return found


def measure_pairs(python: str, folder: Path) -> dict[str, Any]:
    documents, truth = planted()
    (folder / "pairs.json").write_text(json.dumps([" ".join(words) for words in documents]))
    theirs = colliding(np.array(peer(python, "pairs", folder)["signatures"], np.uint64))
    interchange = colliding(np.stack([interchange_signature(words, SETTINGS) for words in documents]))  # type: ignore[arg-type]
    signatures = np.stack([signature(hashes_of(" ".join(words)), SETTINGS) for words in documents])
    own = colliding(signatures)
    leaders = clusters(signatures, ANY)
    by_clusters = {(leader, place) for place, leader in enumerate(leaders) if leader != place}
    rows = []
    for level, start in zip(LEVELS, range(0, len(truth), PAIRS), strict=True):
        group = truth[start : start + PAIRS]
        shares = {
            name: sum((first, first + 1) in found for first, _ in group) / PAIRS for name, found in (("phial", own), ("datatrove", theirs))
        }
        expected = sum(collision_probability(jaccard, SETTINGS) for _, jaccard in group) / PAIRS
        rows.append(
            {
                "jaccard": level,
                **shares,
                "closed_form": round(expected, 3),
                "standard_error": round((expected * (1 - expected) / PAIRS) ** 0.5, 3),
            }
        )
    right = {(first, first + 1) for first, _ in truth}
    return {
        "documents": len(documents),
        "planted_pairs": len(truth),
        "found": {"phial": len(own), "datatrove": len(theirs), "in both": len(own & theirs)},
        "false": {"phial": len(own - right), "datatrove": len(theirs - right)},
        "equal_with_interchange_signatures": interchange == theirs,
        "clusters_equal_pairs": by_clusters == own,
        "share_found": rows,
    }


def generated(start: int, stop: int) -> np.ndarray:
    """Signatures of documents start to stop: uint64 [n, 112], below 2**61. Three in ten are copies, a twentieth of whose places differ."""
    documents = np.arange(start, stop, dtype=np.uint64)
    chance = np.random.default_rng([5, start])
    copy = chance.random(len(documents)) < COPIES
    source = np.where(copy, (documents * chance.random(len(documents)) ** 3).astype(np.uint64), documents)
    places = np.arange(PLACES, dtype=np.uint64)
    source_of_place = np.where((chance.random((len(documents), PLACES)) < CHANGED) & copy[:, None], documents[:, None], source[:, None])
    values = (source_of_place * np.uint64(PLACES) + places).ravel()
    mix_in(values, np.zeros(len(values), np.int32))
    return values.reshape(-1, PLACES) >> np.uint64(3)


def our_clusters(documents: int, threshold: float, folder: Path, answer: Path | None) -> dict[str, Any]:
    """The builder over generated signatures, in this process: CPU seconds without the generation, and peak memory."""
    settings = SETTINGS.model_copy(update={"threshold": threshold})
    warm = ClusterBuilder(folder / "warm", settings)
    warm.add(np.zeros((4, PLACES), np.uint32))
    warm.settle()
    peak, stop = AnonymousPeak(), time.process_time()
    with peak:
        builder, adding = ClusterBuilder(folder / "spill", settings), 0.0
        for start in range(0, documents, BATCH):
            batch = generated(start, min(start + BATCH, documents)).astype(np.uint32)
            started = time.process_time()
            builder.add(batch)
            adding += time.process_time() - started
        started = time.process_time()
        leaders = builder.settle()
        stop = time.process_time()
    if answer is not None:
        np.save(answer, leaders)
    return {
        "documents": documents,
        "threshold": threshold,
        "add_cpu_seconds": round(adding, 2),
        "settle_cpu_seconds": round(stop - started, 2),
        "cpu_seconds": round(adding + stop - started, 2),
        "duplicates": int((leaders != np.arange(documents)).sum()),
        "comparisons": builder.compared,
        "buffer_bound_mebibytes": builder.memory >> 20,
        "peak_anonymous_mebibytes": peak.highest >> 20,
        "anonymous_mebibytes_before": peak.before >> 20,
        "peak_resident_mebibytes": of_status("VmHWM") >> 20,
    }


class AnonymousPeak:
    """The most anonymous memory of this process while the block runs, looked at every 20 ms (Linux)."""

    def __enter__(self) -> "AnonymousPeak":
        self.before = self.highest = self.now()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.ended.wait(0.02):
            self.highest = max(self.highest, self.now())

    @staticmethod
    def now() -> int:
        return of_status("RssAnon")


def of_status(name: str) -> int:
    """A value of /proc/self/status in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def in_child(documents: int, threshold: float, folder: Path, answer: Path | None = None) -> dict[str, Any]:
    """`our_clusters` in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.minhash", "--clusters-of", str(documents), str(threshold), str(folder), str(answer or "")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def their_clusters(documents: int, python: str, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Stages 2 and 3 over the same signatures: CPU seconds, and the first document of each one's cluster."""
    write_interchange(
        folder / "signatures",
        np.concatenate([generated(at, min(at + BATCH, documents)) for at in range(0, documents, BATCH)]),
        np.arange(documents),
        SETTINGS,
    )
    found = peer(python, "clusters", folder)
    leaders, first = np.arange(documents), {}
    for document, cluster in sorted(found["clusters"]):
        leaders[document] = first.setdefault(cluster, document)
    seconds = found["stage2"] + found["stage3"]
    return {
        "documents": documents,
        "cpu_seconds": round(seconds, 2),
        "stage2": round(found["stage2"], 2),
        "stage3": round(found["stage3"], 2),
    }, leaders


def measure_clusters(documents: int, peer_documents: int, python: str, folder: Path) -> dict[str, Any]:
    rows: dict[str, Any] = {"phial": [], "datatrove": []}
    equal = True
    for count in (peer_documents // PEER_STEP, peer_documents):
        with tempfile.TemporaryDirectory(dir=folder) as one:
            answer = Path(one) / "leaders.npy"
            rows["phial"].append(in_child(count, ANY.threshold, Path(one), answer))
            theirs, leaders = their_clusters(count, python, Path(one))
            rows["datatrove"].append(theirs)
            equal = equal and bool((np.load(answer) == leaders).all())
    rows["phial"].append(in_child(documents, SETTINGS.threshold, folder))
    small, large = (row["cpu_seconds"] for row in rows["datatrove"])
    ours = rows["phial"][1]["cpu_seconds"]
    return {
        **rows,
        "clusters_equal": equal,
        "ratio_at_peer_documents": round(large / ours, 1),
        "datatrove_scaling_exponent": round(float(np.log(large / small) / np.log(PEER_STEP)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--peer-documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clusters-of", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.clusters_of:
        documents, threshold, folder, answer = given.clusters_of
        print(json.dumps(our_clusters(int(documents), float(threshold), Path(folder), Path(answer) if answer else None)))
        return
    if given.pages is None:
        parser.error("--pages FOLDER is needed")
    texts = [
        extract_plain_text(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        for path in sorted((given.pages / "pages").iterdir())
    ]
    texts = [text for text in texts if text.strip()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record: dict[str, Any] = provenance("numpy", "numba", "xxhash")
        record["signatures"] = measure_signatures(texts, given.peer_python, folder, given.rounds)
        print(record["signatures"], flush=True)
        record["signatures"]["interchange"] = check_equal([*texts[:40], "", "two words"], given.peer_python, folder)
        record["pairs"] = measure_pairs(given.peer_python, folder)
        print(record["signatures"]["interchange"], record["pairs"], flush=True)
        record["clusters"] = measure_clusters(given.documents, given.peer_documents, given.peer_python, folder)
        print(record["clusters"], flush=True)
    write_json(RESULTS, record)
    same = all(one["texts"] == one["equal"] for name, one in record["signatures"]["interchange"].items() if name != "versions")
    sys.exit(not (same and record["pairs"]["equal_with_interchange_signatures"] and record["clusters"]["clusters_equal"]))


if __name__ == "__main__":
    main()
