"""Token files against datatrove's own writers and reader: python -m benchmarks.interchange --peer-python PYTHON

Random documents are written by datatrove as `.ds` and as Megatron's `.bin/.idx`; each is converted to the other form and back, and bytes
are compared. What was converted to `.ds` is read by datatrove's data set where PYTHON has torch for it. Writes
benchmarks/results/interchange.json.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.interchange.convert import Settings, convert
from data_pipeline.provenance import peak_rss_bytes, provenance
from data_pipeline.storage import write_json

RESULTS = Path(__file__).parent / "results" / "interchange.json"
PEER = Path(__file__).with_name("interchange_peer.py")
DOCUMENTS = 8_000


def peer(python: str, *arguments: object) -> dict[str, Any]:
    answer = subprocess.run([python, str(PEER), *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def one_width(python: str, folder: Path, size: int) -> dict[str, Any]:
    """Every direction, with ids of `size` bytes."""
    draw = np.random.default_rng(size)
    lengths = draw.integers(1, 1_000, DOCUMENTS)
    ids = draw.integers(0, 65_000 if size == 2 else 200_000, lengths.sum()).astype(np.uint32)
    np.savez(folder / "documents.npz", ids=ids, ends=np.cumsum(lengths))
    versions = peer(python, "write", folder, size)["versions"]
    started = time.process_time()
    convert(folder / "peer.ds", folder / "from_ds.bin", Settings())
    seconds = time.process_time() - started
    convert(folder / "peer.bin", folder / "from_megatron.ds", Settings())
    convert(folder / "from_ds.bin", folder / "back.ds", Settings())
    pairs = {
        "datatrove .ds to Megatron = datatrove's Megatron writer": [("from_ds.bin", "peer.bin"), ("from_ds.idx", "peer.idx")],
        "Megatron to .ds = datatrove's .ds writer": [("from_megatron.ds", "peer.ds"), ("from_megatron.ds.index", "peer.ds.index")],
        ".ds to Megatron to .ds": [("back.ds", "peer.ds"), ("back.ds.index", "peer.ds.index")],
    }
    same: dict[str, bool | str] = {
        what: all((folder / one).read_bytes() == (folder / other).read_bytes() for one, other in files) for what, files in pairs.items()
    }
    metadata = [(folder / f"{name}.ds.metadata").read_text().split("\n", 1)[1] for name in ("back", "peer")]
    same["counts in the metadata"] = metadata[0] == metadata[1]
    try:
        windows = ids[: len(ids) // 128 * 128].astype("<u4").tobytes()
        same["datatrove reads what was converted"] = (
            peer(python, "read", folder / "back.ds", size)["sha256"] == hashlib.sha256(windows).hexdigest()
        )
    except subprocess.CalledProcessError as error:
        same["datatrove reads what was converted"] = f"not run: {error.stderr.strip().splitlines()[-1]}"
    return {
        "documents": DOCUMENTS,
        "tokens": len(ids),
        "equal_bytes": same,
        "million_tokens_per_cpu_second": round(len(ids) / 1e6 / seconds, 1),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True)
    python = parser.parse_args().peer_python
    widths = {}
    for size in (2, 4):
        with tempfile.TemporaryDirectory() as name:
            widths[f"{size} bytes per token"] = one_width(python, Path(name), size)
    record = {**provenance("numpy"), "widths": widths, "peak_rss_megabytes": round(peak_rss_bytes() / 1e6)}
    write_json(RESULTS, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
