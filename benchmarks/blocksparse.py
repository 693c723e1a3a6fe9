"""phi-3-small's blocksparse attention against torch's dense causal attention on a CPU: python -m benchmarks.blocksparse [--rounds N]

One row of 8,192 tokens, 32 query heads, 8 key heads, 128 features, as in phi-3-small; forward alone, and forward with backward. The two
take turns, one pass each a round; a ratio is of two passes of the same round, and its median is reported. Pairs are query-key pairs over
all heads: needed by the pattern, computed by the operator (masked ones included), in the exact causal triangle, and computed by torch's
kernel for it. Writes benchmarks/results/blocksparse.json.
"""

# B rows, T tokens, N query heads, K key heads, H features per head.

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from modeling.backends.blocksparse import blocksparse_attention
from modeling.blocksparse_counts import computed_pairs, dense_pairs, kernel_causal_pairs, needed_pairs
from modeling.config import BlockSparse
from modeling.presets import PHI3_SMALL_8K

RESULTS = Path(__file__).parent / "results" / "blocksparse.json"
HEADS, KEY_HEADS, WIDTH = PHI3_SMALL_8K.num_heads, PHI3_SMALL_8K.num_kv_heads, PHI3_SMALL_8K.head_dim
SCALE = PHI3_SMALL_8K.attention_scale
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def count(tokens: int) -> dict[str, float]:
    """Pairs, and what part of dense work the operator does."""
    sparse = BlockSparse()
    computed, triangle, kernel = computed_pairs(tokens, sparse, HEADS), HEADS * dense_pairs(tokens), HEADS * kernel_causal_pairs(tokens)
    return {
        "needed": needed_pairs(tokens, sparse, HEADS),
        "computed": computed,
        "causal_triangle": triangle,
        "computed_by_the_dense_kernel": kernel,
        "computed_over_triangle": round(computed / triangle, 4),
        "computed_over_dense_kernel": round(computed / kernel, 4),
    }


def ways(tokens: int) -> dict[str, Way]:
    """Both attentions of q (B, N, T, H) over k and v (B, K, T, H)."""
    bounds = torch.tensor([0, tokens], dtype=torch.int32)
    return {
        "blocksparse": lambda q, k, v: blocksparse_attention(q, k, v, bounds, BlockSparse(), SCALE),
        "dense": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=True),
    }


def seconds(way: Way, inputs: list[Tensor], gradient: Tensor | None) -> float:
    """One forward pass, and the backward pass where a gradient is given."""
    began = time.perf_counter()
    if gradient is None:
        with torch.no_grad():
            way(*inputs)
    else:
        torch.autograd.grad(way(*inputs), inputs, gradient)
    return time.perf_counter() - began


def measure(tokens: int, dtype: torch.dtype, backward: bool, rounds: int) -> dict[str, Any]:
    """Turns of both ways after one to warm up."""
    heads = (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
    q, k, v, dy = (torch.randn(1, tokens, number, WIDTH, dtype=dtype).transpose(1, 2) for number in heads)
    inputs = [one.requires_grad_() for one in (q, k, v)]
    taken: dict[str, list[float]] = {name: [] for name in ways(tokens)}
    for number in range(rounds + 1):
        for name, way in ways(tokens).items():
            one = seconds(way, inputs, dy if backward else None)
            if number:
                taken[name].append(round(one, 4))
    ratios = [dense / sparse for dense, sparse in zip(taken["dense"], taken["blocksparse"], strict=True)]
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "pass": "forward and backward" if backward else "forward",
        "seconds": taken,
        "times_faster_than_dense": round(statistics.median(ratios), 3),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    facts = {**provenance("torch"), "threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2)}
    pairs = count(asked.tokens)
    print(pairs, flush=True)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for backward in (False, True):
            rows.append(measure(asked.tokens, dtype, backward, asked.rounds))
            print(rows[-1], flush=True)
    write_json(asked.out, {**facts, "tokens": asked.tokens, "rounds": asked.rounds, "pairs": pairs, "rows": rows})


if __name__ == "__main__":
    main()
