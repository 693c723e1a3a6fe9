"""Conversion of a model of real size, both ways: python -m benchmarks.convert [--preset phi3-mini-4k] [--folder SCRATCH]

Writes a folder of the member's size in bf16 (random bytes of one repeated block: cheap to make, no value is NaN), in shards of 5 GB and
of 1 GB, runs `phial convert` to a checkpoint and back as child processes, and compares the SHA-256 of every tensor. Records wall time and
the peak resident memory of each child, mapped file pages included. Needs about three times the model on disk; SCRATCH is emptied after.
Writes benchmarks/results/convert.json.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from data_pipeline.provenance import ROOT, provenance
from data_pipeline.storage import write_json
from modeling.config import DecoderConfig
from modeling.counts import count_parameters
from modeling.hf_weights import parameter_shapes, weight_files, write_hf_folder
from modeling.presets import preset

RESULTS = Path(__file__).parent / "results" / "convert.json"
BLOCK = 1 << 20


def cheap_tensors(config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
    """Every parameter in bf16, one at a time: a block of seeded normal values, repeated from another place in each tensor."""
    block = (torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    for number, (name, shape) in enumerate(parameter_shapes(config).items()):
        count = torch.Size(shape).numel()
        yield name, block.roll(number * 7919).repeat(-(-count // BLOCK))[:count].view(shape)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor's bytes."""
    found = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                found[name] = hashlib.sha256(weights.get_tensor(name).view(torch.uint8).numpy()).hexdigest()
    return found


# The front door, and at its end what the process itself held at most: the account of the operating system begins with the parent's size.
CHILD = """
import atexit, runpy, sys
from data_pipeline.provenance import peak_rss_bytes
atexit.register(lambda: print(peak_rss_bytes(), file=sys.stderr))
sys.argv = ["phial", "convert", *sys.argv[1:]]
runpy.run_path("phial.py", run_name="__main__")
"""


def converted(source: Path, target: Path) -> dict[str, Any]:
    """Wall seconds and peak memory of one `phial convert` in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", CHILD, str(source.resolve()), str(target.resolve())]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"phial convert {source} {target} ended with {child.returncode}: {child.stderr.strip()}")
    return {"seconds": round(time.perf_counter() - started, 1), "peak_rss_bytes": int(child.stderr.split()[-1])}


def measured(config: DecoderConfig, shard_bytes: int, scratch: Path) -> dict[str, Any]:
    """A round trip from shards of this size."""
    model, checkpoint, back = scratch / "model", scratch / "checkpoint", scratch / "back"
    write_hf_folder(model, config, cheap_tensors(config), shard_bytes)
    sizes = [path.stat().st_size for path in weight_files(model)]
    result: dict[str, Any] = {"source_files": len(sizes), "largest_source_file_bytes": max(sizes), "source_bytes": sum(sizes)}
    result["to_checkpoint"] = converted(model, checkpoint)
    expected = hashes(model)
    shutil.rmtree(model)
    result["to_hugging_face"] = converted(checkpoint, back)
    shutil.rmtree(checkpoint)
    written = [path.stat().st_size for path in weight_files(back)]
    if hashes(back) != expected:
        raise SystemExit("the round trip changed a tensor")
    shutil.rmtree(back)
    return result | {"largest_written_file_bytes": max(written), "tensors": len(expected), "equal_after_round_trip": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="phi3-mini-4k")
    parser.add_argument("--folder", type=Path, help="where to put the files; a temporary folder by default")
    parser.add_argument("--shard-gb", type=float, nargs="+", default=[5.0, 1.0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    config = preset(chosen.preset)
    needed = 3 * 2 * count_parameters(config)
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
        if shutil.disk_usage(scratch).free < needed:
            raise SystemExit(f"{scratch}: {needed / 1e9:.0f} GB of free disk are needed")
        rows = {}
        for size in chosen.shard_gb:
            rows[f"{size:g} GB shards"] = measured(config, int(size * 1e9), Path(scratch))
            print(json.dumps(rows[f"{size:g} GB shards"]), flush=True)
    facts = {"preset": chosen.preset, "parameters": count_parameters(config), "dtype": "bfloat16"}
    write_json(chosen.out, {**provenance("torch", "safetensors"), "model": facts, "conversions": rows})


if __name__ == "__main__":
    main()
