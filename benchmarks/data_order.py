"""The data order at full size: `python -m benchmarks.data_order [--tokens 3.3e12]`. Writes benchmarks/results/data_order.json.

A source of that many tokens in shards of 2**26 whose files are links to one sparse file of ids and one file of ends, so it takes no room
on disk; documents have log-normal lengths, about 1,000 tokens on average. Measured: opening it, the first row, rows after that, a row of
the next block, the row in the middle of the run for a run that goes on (with the row counts of its checkpoint), and the memory that all
this takes.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.tokens.mixture import Mixture, PhaseRecipe
from data_pipeline.tokens.mixture_history import EditedMixture, first_history
from data_pipeline.tokens.shards import DTYPES, END_DTYPE, TokenShards
from data_pipeline.tokens.source_order import BLOCK_TOKENS

RESULTS = Path(__file__).parent / "results" / "data_order.json"
CONTEXT, ROWS_PER_STEP = 4096, 1024


def make_source(folder: Path, tokens: float) -> int:
    """Shards that share their two files; returns how many there are."""
    folder.mkdir()
    lengths = np.random.default_rng(0).lognormal(6.4, 1.0, BLOCK_TOKENS // 500).astype(np.int64) + 2
    ends = np.cumsum(lengths)
    ends = ends[ends <= BLOCK_TOKENS]
    held, shards = int(ends[-1]), max(1, round(tokens / int(ends[-1])))
    with (folder / "tokens-00000.bin").open("wb") as file:
        file.truncate(held * DTYPES["uint16"].itemsize)
    ends.astype(END_DTYPE).tofile(folder / "ends-00000.bin")
    for number in range(1, shards):
        for name in ("tokens", "ends"):
            # links of one file are limited (65,000 on ext4), so every 10,000th is a copy
            whole = folder / f"{name}-{number // 10_000 * 10_000:05d}.bin"
            if number % 10_000:
                os.link(whole, folder / f"{name}-{number:05d}.bin")
            elif name == "ends":
                whole.write_bytes((folder / "ends-00000.bin").read_bytes())
            else:
                with whole.open("wb") as file:
                    file.truncate(held * DTYPES["uint16"].itemsize)
    entries = [
        {
            "tokens_file": f"tokens-{number:05d}.bin",
            "ends_file": f"ends-{number:05d}.bin",
            "tokens": held,
            "documents": len(ends),
            "tokens_sha256": f"{number:064x}",
            "ends_sha256": f"{number:064x}",
        }
        for number in range(shards)
    ]
    manifest = {"format": 1, "source": "web", "dtype": "uint16", "vocab_size": 32_064, "tokenizer_sha256": "0" * 64}
    manifest |= {"tokens": held * shards, "documents": len(ends) * shards, "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return shards


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def measure(tokens: float, folder: Path) -> dict[str, Any]:
    """Seconds of each part, on one core."""
    shards = make_source(folder / "web", tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    open_s, web = timed(lambda: TokenShards.open(folder / "web"))
    steps = int(0.9 * web.num_tokens / (CONTEXT * ROWS_PER_STEP))
    phases = [PhaseRecipe(name="all", steps=steps, weights={"web": 1.0}, max_epochs=1)]
    plan_s, mixture = timed(lambda: Mixture(phases, {"web": web}, CONTEXT, ROWS_PER_STEP, 0))
    first_s, _ = timed(lambda: mixture.row(0, 0))
    row_s = [timed(lambda index=index: mixture.row(0, index))[0] for index in range(1, 1024)]
    rows = mixture.row_counts["web"][0]
    next_block_s, _ = timed(lambda: mixture.row(*divmod(rows, ROWS_PER_STEP)))
    middle = steps // 2
    counts = {"web": [rows] * (middle * ROWS_PER_STEP // rows)}  # as a checkpoint would hold them
    resume_s, again = timed(lambda: EditedMixture(first_history(phases), {"web": web}, CONTEXT, ROWS_PER_STEP, 0, counts))
    there_s, _ = timed(lambda: again.row(middle, 0))
    return {
        "tokens": web.num_tokens,
        "documents": web.num_documents,
        "shards": shards,
        "steps": steps,
        "open_s": open_s,
        "plan_s": plan_s,
        "first_row_s": first_s,
        "row_s_median": statistics.median(row_s),
        "next_block_s": next_block_s,
        "resume_plan_s": resume_s,
        "resume_row_s": there_s,
        "added_peak_rss_bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
        "filled": mixture.report()["sources"]["web"]["filled"],
        "epochs": mixture.report()["sources"]["web"]["epochs"],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, default=3.3e12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = {**provenance("numpy"), "block_tokens": BLOCK_TOKENS, "context": CONTEXT, **measure(options.tokens, Path(folder))}
    write_json(options.out, result)
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))


if __name__ == "__main__":
    main()
