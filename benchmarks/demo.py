"""The demo's figures: python -m benchmarks.demo --out DIR (runs `phial demo`), or --run DIR for a run that is finished.

Writes benchmarks/results/demo.json: the run's results.json without sample pages, protocols and file lists, and what the browser check
of that run said where it was made (`python -m benchmarks.browser DIR`).
`python -m benchmarks.readme_figures` writes README's figures from it.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, write_json

RESULTS = Path(__file__).resolve().parent / "results/demo.json"
MODELS = ("base", "sft", "dpo", "int4")
# Of results.json as they are; `stages`, `families` and `machine` are shortened.
COPIED = ("multiple_choice", "exact_answers", "bits_per_byte", "preference_accuracy", "paired", "quantization", "bench")
COPIED += ("wall_s", "cpu_s", "peak_rss_bytes", "commit", "date", "seed", "ranks")
OF_A_FAMILY = ("accuracy", "stderr", "items", "chance", "near_chance", "letter_accuracy", "text_accuracy")
LONGEST_TEXT, LONGEST_LIST, LARGEST_BYTES = 200, 12, 60_000
LEFT_OUT = ("samples", "outputs", "model", "texts", "sha256")  # of a stage's counts: pages, paths and hashes


def run_demo(out: Path) -> None:
    """`phial demo --out OUT` with this Python, its progress on the terminal."""
    done = subprocess.run([sys.executable, "-m", "phial", "demo", "--out", str(out)], check=False)
    if done.returncode:
        raise InputError(f"phial demo --out {out}: ended with {done.returncode}; run it again to go on")


def shorten(value: Any) -> Any:
    """A copy without long texts and lists, its floats rounded to six significant digits."""
    if isinstance(value, dict):
        kept = {name: shorten(one) for name, one in value.items() if name not in LEFT_OUT}
        return {name: one for name, one in kept.items() if one is not None}
    if isinstance(value, list):
        return [shorten(one) for one in value] if len(value) <= LONGEST_LIST else None
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return None
    return float(f"{value:.6g}") if isinstance(value, float) else value


def figures(run: Path) -> dict[str, Any]:
    """What is kept of a finished run. Raises InputError where the run has no results or they lack a key."""
    path = run / "results.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; a run that `phial demo` has finished is needed")
    results = read_json(path)
    missing = [name for name in ("stages", "families", "machine", *COPIED) if name not in results]
    if missing:
        raise InputError(f"{path}: no key {missing[0]!r}; results of `phial demo` are needed")
    kept = {name: results[name] for name in COPIED}
    kept["stages"] = results["stages"]
    kept["families"] = {
        model: {family: {name: scores[name] for name in OF_A_FAMILY} for family, scores in families.items()}
        for model, families in results["families"].items()
    }
    kept["machine"] = {name: results["machine"][name] for name in ("cpu", "cores", "memory_bytes", "python", "packages")}
    if (run / "browser.json").exists():
        kept["browser"] = browser_figures(read_json(run / "browser.json"))
    return {"script": "python -m benchmarks.demo", **shorten(kept)}


def browser_figures(check: dict[str, Any]) -> dict[str, Any]:
    """How many questions the chat page answered with Python's tokens, and what its console said."""
    return {
        "questions": len(check["questions"]),
        "equal": check["equal"],
        "accepted": check["accepted"],
        "console_errors": len(check["console_errors"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="runs the demo into this folder first")
    where.add_argument("--run", type=Path, help="the folder of a finished run")
    given = parser.parse_args()
    try:
        if given.run is None:
            run_demo(given.out)
        write_json(RESULTS, figures(given.out if given.run is None else given.run))
    except InputError as error:
        sys.exit(f"benchmarks.demo: {error}")
    size = RESULTS.stat().st_size
    if size > LARGEST_BYTES:
        sys.exit(f"benchmarks.demo: {RESULTS.name} has {size:,} bytes, more than {LARGEST_BYTES:,}; leave more out")
    print(f"{RESULTS.name}: {size:,} bytes; now run: python -m benchmarks.readme_figures")


if __name__ == "__main__":
    main()
