"""A hundred kills: a tiny run is killed (SIGKILL) at seeded moments until it ends, and must end with the undisturbed run's bits.

    python -m benchmarks.soak [--kills 100] [--seeds 3] [--out FILE]

Moments are counts of writes, renames and deletions of files, which lie thickest inside checkpoints, and of optimizer steps. Weights are
compared bit for bit, logged rows but for their times. Writes benchmarks/results/soak.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from training.cluster.rehearsal import write_corpus
from training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "training" / "killed_runs.py"
RESULTS = Path(__file__).parent / "results"


def killed_run(corpus: Path, out: Path, seed: int, kills: int) -> list[int]:
    """The exit codes of every try; -9 is a kill that struck."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(corpus), str(out), str(seed), str(kills)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"soak: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["exit_codes"]


def rows(out: Path) -> list[dict[str, Any]]:
    """Logged rows without times."""
    timed = ("second", "per_s", "memory", "mfu")
    return [{k: v for k, v in row.items() if not any(word in k for word in timed)} for row in read_metrics(out / "metrics.jsonl")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {**provenance("torch"), "kills_wanted": options.kills, "runs": []}
    with tempfile.TemporaryDirectory(prefix="phial-soak-") as folder:
        root = Path(folder)
        write_corpus(root)
        # The program's recipe reads two sources.
        os.symlink(root / "tokens" / "web", root / "tokens" / "synthetic")
        killed_run(root, root / "undisturbed", 0, 0)
        expected = load_file(root / "undisturbed" / "model" / "model.safetensors")
        for seed in range(1, options.seeds + 1):
            began = time.monotonic()
            out = root / f"killed-{seed}"
            codes = killed_run(root, out, seed, options.kills // options.seeds + (seed <= options.kills % options.seeds))
            found = load_file(out / "model" / "model.safetensors")
            equal = found.keys() == expected.keys() and all(bool((found[name] == expected[name]).all()) for name in found)
            run = {"seed": seed, "kills": codes.count(-9), "tries": len(codes), "weights_equal": equal}
            run |= {"rows_equal": rows(out) == rows(root / "undisturbed"), "seconds": round(time.monotonic() - began, 1)}
            record["runs"].append(run)
            print(f"soak: seed {seed}: {run['kills']} kills, weights equal: {equal}, rows equal: {run['rows_equal']}", flush=True)
    record["kills"] = sum(run["kills"] for run in record["runs"])
    record["all_equal"] = all(run["weights_equal"] and run["rows_equal"] for run in record["runs"])
    write_json(options.out, record)
    if not record["all_equal"]:
        raise SystemExit("soak: a killed run ended otherwise than the undisturbed one")


if __name__ == "__main__":
    main()
