"""Packed attention by document against the dense mask, forward and backward on a CPU: python -m benchmarks.packed_attention [--threads N]

One row of T tokens, cut into documents of log-normal length (mean 400, sigma 1.0, seed 0), for T from 1,024 to 8,192. Three ways: by
document, by document with a window of 256 keys, and torch's attention under the dense mask with no window (making the mask is not timed).
Pairs are query-key pairs that each looks at, per head. Seconds are the least of several runs; `load_average` says how many processes
wanted the processor meanwhile. Writes benchmarks/results/packed_attention.json.
"""

# T tokens, N query heads, H features per head.

import argparse
import math
import os
import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from modeling.backends.packed import packed_attention, pieces
from modeling.visible import Visible, dense_mask

RESULTS = Path(__file__).parent / "results" / "packed_attention.json"
ROWS = (1024, 2048, 4096, 8192)
MEAN, SIGMA, WINDOW, HEAD_DIM, SCALE = 400, 1.0, 256, 64, 0.125


def document_cuts(tokens: int, seed: int = 0) -> list[int]:
    """Where log-normal documents begin in a row of `tokens`, and its end; the last document is cut off there."""
    draw, cuts = random.Random(seed), [0]
    while cuts[-1] < tokens:
        cuts.append(cuts[-1] + max(1, round(draw.lognormvariate(math.log(MEAN) - SIGMA**2 / 2, SIGMA))))
    return [*cuts[:-1], tokens]


def seconds(attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor], dy_BNTH: Tensor, runs: int) -> float:
    """The least time of one forward and backward pass."""
    taken = []
    for _ in range(runs + 1):  # the first warms up
        started = time.perf_counter()
        torch.autograd.grad(attend(*inputs), inputs, dy_BNTH)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def measure(tokens: int, heads: int, dtype: torch.dtype, runs: int) -> dict[str, Any]:
    """One row's pairs and times by every way."""
    cuts = document_cuts(tokens)
    q, k, v, dy = (torch.randn(1, tokens, heads, HEAD_DIM, dtype=dtype).transpose(1, 2) for _ in range(4))
    inputs = [one.requires_grad_() for one in (q, k, v)]
    bounds = torch.tensor(cuts, dtype=torch.int32)
    runs_BT = torch.repeat_interleave(torch.arange(len(cuts) - 1), torch.tensor([end - begin for begin, end in pairwise(cuts)]))[None]
    mask = dense_mask(Visible(num_queries=tokens, num_keys=tokens, runs_BT=runs_BT), torch.device("cpu"))
    ways = {
        "by document": lambda q, k, v: packed_attention(q, k, v, bounds, 0, SCALE),
        "by document, window": lambda q, k, v: packed_attention(q, k, v, bounds, WINDOW, SCALE),
        "dense mask": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=SCALE),
    }
    pairs = [sum(piece.pairs for piece in pieces(cuts, tokens, window)) for window in (0, WINDOW)]
    timed = {name: seconds(attend, inputs, dy, runs) for name, attend in ways.items()}
    return {
        "tokens": tokens,
        "heads": heads,
        "dtype": str(dtype).removeprefix("torch."),
        "documents": len(cuts) - 1,
        "longest_document": max(end - begin for begin, end in pairwise(cuts)),
        "pairs": dict(zip(ways, [*pairs, tokens * tokens], strict=True)),
        "milliseconds": {name: round(1e3 * one, 2) for name, one in timed.items()},
        "times_faster_than_dense": round(timed["dense mask"] / timed["by document"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    shapes = [(tokens, 6, torch.float32) for tokens in ROWS]
    shapes += [(2048, 12, torch.float32), (2048, 6, torch.bfloat16), (2048, 12, torch.bfloat16)]
    rows = []
    for shape in shapes:
        rows.append(measure(*shape, asked.runs))
        print(rows[-1], flush=True)
    setting = {
        "mean": MEAN,
        "sigma": SIGMA,
        "seed": 0,
        "window_keys": WINDOW,
        "head_dim": HEAD_DIM,
        "threads": asked.threads,
        "runs": asked.runs,
    }
    write_json(RESULTS, {**provenance("torch"), "load_average": round(os.getloadavg()[0], 2), "setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
