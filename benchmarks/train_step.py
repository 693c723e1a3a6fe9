"""Tokens per second of one training step on this CPU: ours, transformers' Phi3ForCausalLM, plain torch.

    python -m benchmarks.train_step [--sizes 20m 150m] [--dtypes float32 bfloat16] [--cases packed ...] [--rounds 5] [--profile FOLDER]

One step: forward, loss, backward, clipping, fused AdamW, gradients freed. All sides start from the same weights and read the same rows.
Before timing, losses and gradient norms of every way must agree, and packed documents must not see one another. Then the sides take
turns, every way to run them (eager, compiled) once a round, on a new batch each round. A side counts with its best way. A ratio is of two
steps of the same round, and the median over the rounds is reported. Writes benchmarks/results/train_step.json (`--quick` only with
`--out`).
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.step.agreement import check_isolation, check_sides, check_the_check
from benchmarks.step.profiles import profile_step
from benchmarks.step.rows import Batch, describe, keys_seen, make_batch
from benchmarks.step.sides import Side, first_weights, label, our_side, plain_side, their_side
from data_pipeline.provenance import provenance
from data_pipeline.storage import read_json, write_json
from modeling.config import DecoderConfig
from modeling.counts import count_parameters

OUT = Path(__file__).parent / "results" / "train_step.json"
SHAPE: dict[str, Any] = {"vocab_size": 32_064, "max_positions": 2048, "tied": True}
SIZES = {
    "20m": DecoderConfig(hidden_size=320, intermediate_size=896, num_layers=8, num_heads=5, num_kv_heads=5, **SHAPE),
    "150m": DecoderConfig(hidden_size=768, intermediate_size=2048, num_layers=18, num_heads=12, num_kv_heads=12, **SHAPE),
    "tiny": DecoderConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_layers=2, num_heads=2, num_kv_heads=1, max_positions=2048, tied=True
    ),
}
# Case -> kind of rows, tokens of a row where `--row-tokens` is 2,048.
CASES = {"packed": ("packed", 2048), "padded": ("padded", 2048), "short": ("packed", 512), "unpacked": ("unpacked", 2048)}
GOALS = {("20m", "packed"): 1.3, ("150m", "packed"): 1.2, ("20m", "unpacked"): 0.97, ("150m", "unpacked"): 0.97}


def run_size(size: str, bfloat16: bool, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases of one size in one number format."""
    config = SIZES[size]
    weights = first_weights(config)
    results: list[dict[str, Any]] = []
    for case in options.cases:
        torch.compiler.reset()
        # New ones for each case: a side with more ways has taken more steps. Plain torch comes last, as what the others are held against.
        compiled = not options.no_compile
        sides = [our_side(config, weights, compiled), their_side(config, weights, compiled), plain_side(config, weights)]
        result = {"size": size, "case": case, "dtype": dtype_name(bfloat16), **run_case(size, case, sides, bfloat16, options)}
        goal = GOALS.get((size, case))
        results.append(result | ({} if goal is None else {"goal_against_transformers": goal}))
        print_result(results[-1])
    return results


def dtype_name(bfloat16: bool) -> str:
    return "bfloat16 autocast" if bfloat16 else "float32"


def run_case(size: str, case: str, sides: list[Side], bfloat16: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Checks, warm-up, timed rounds, and profiles where asked for."""
    kind, row_tokens = CASES[case]
    row_tokens = row_tokens * options.row_tokens // 2048
    rows = max(1, options.tokens // row_tokens)

    def batch(number: int) -> Batch:
        return make_batch(kind, rows, row_tokens, SIZES[size].vocab_size, number, options.mean)

    first = batch(0)
    agreement = check_sides(sides, first, bfloat16)
    checks: dict[str, Any] = {"agreement": agreement}
    if kind == "packed":
        checks["leak_without_isolation"] = check_the_check(sides[-1], first, bfloat16)
    turns = [(side, way) for side in sides for way in side.ways]
    warm_up = {label(side, way): round(warm(side, way, batch, bfloat16), 2) for side, way in turns}
    for name, one in agreement.items():
        warm_up[name] = round(warm_up[name] + one["seconds"], 2)  # the check was the first pass, which compiles
    print(f"{size}, {case}, {dtype_name(bfloat16)}: sides agree; warmed up in", warm_up, flush=True)
    if kind == "packed":
        checks["leak"] = {label(side, way): check_isolation(side, way, first, bfloat16) for side, way in turns}
    seconds: dict[str, list[float]] = {label(side, way): [] for side, way in turns}
    load = psutil.getloadavg()[0]
    tokens: list[int] = []
    for number in range(1, options.rounds + 1):
        rows_now = batch(number)
        tokens.append(rows_now.real_tokens)
        for side, way in turns:
            seconds[label(side, way)].append(timed(side, way, rows_now, bfloat16))
    shape = {
        "rows": rows,
        "row_tokens": row_tokens,
        "load_before": round(load, 2),
        "real_tokens": tokens,
        "keys_per_query": round(keys_seen(first), 1),
    }
    result = shape | {"checks": checks, "warm_up_s": warm_up, "step_s": seconds} | compare(sides, seconds, tokens)
    if options.profile:
        for side in sides:
            way = result["best_way"][side.name]
            name = f"{size}-{case}-{dtype_name(bfloat16).split()[0]}-{side.name.replace(' ', '-')}"
            profile_step(lambda side=side, way=way: side.step(way, first, bfloat16), options.profile / f"{name}.txt")
    return result


def warm(side: Side, way: str, batch: Any, bfloat16: bool) -> float:
    """Seconds of the first two steps; two batches, so that what changes with the data is compiled too."""
    return sum(timed(side, way, batch(number), bfloat16) for number in (0, 1000))


def timed(side: Side, way: str, batch: Batch, bfloat16: bool) -> float:
    began = time.perf_counter()
    side.step(way, batch, bfloat16)
    return time.perf_counter() - began


def compare(sides: list[Side], seconds: dict[str, list[float]], tokens: list[int]) -> dict[str, Any]:
    """Tokens per second of every way, the best way of every side, and ratios within rounds of our best to the others' best."""
    speeds = {name: [count / one for count, one in zip(tokens, times, strict=True)] for name, times in seconds.items()}
    best = {side.name: max(side.ways, key=lambda way, side=side: statistics.median(speeds[label(side, way)])) for side in sides}
    ours, *others = [label(side, best[side.name]) for side in sides]
    ratios = {
        side.name: spread([a / b for a, b in zip(speeds[ours], speeds[other], strict=True)])
        for side, other in zip(sides[1:], others, strict=True)
    }
    return {"tokens_per_s": {name: spread(one) for name, one in speeds.items()}, "best_way": best, "ours_times_as_fast": ratios}


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest, to four figures."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def print_result(result: dict[str, Any]) -> None:
    print(f"\n{result['size']}, {result['case']}, {result['dtype']}: {result['rows']} rows of {result['row_tokens']}", flush=True)
    for name, speed in result["tokens_per_s"].items():
        print(f"  {name:32} {speed['median']:>10,.0f} tokens/s   ({speed['low']:,.0f} to {speed['high']:,.0f})")
    for name, ratio in result["ours_times_as_fast"].items():
        goal = result.get("goal_against_transformers") if name == "transformers" else None
        print(
            f"  {ratio['median']:.2f} times {name} ({ratio['low']:.2f} to {ratio['high']:.2f})" + (f", goal {goal}" if goal else ""),
            flush=True,
        )


def best_dtypes(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per size and case, each side in its best number format: its tokens per second, and ours over it."""
    rows: list[dict[str, Any]] = []
    for size, case in dict.fromkeys((one["size"], one["case"]) for one in results):
        found: dict[str, tuple[float, str]] = {}
        for one in results:
            if (one["size"], one["case"]) == (size, case):
                for side, way in one["best_way"].items():
                    speed = one["tokens_per_s"][f"{side}, {way}"]["median"]
                    found[side] = max(found.get(side, (0.0, "")), (speed, f"{one['dtype']}, {way}"))
        ours = found["phial"][0]
        table = {side: {"tokens_per_s": speed, "how": how, "ours_over_it": round(ours / speed, 3)} for side, (speed, how) in found.items()}
        rows.append({"size": size, "case": case, "sides": table})
    return rows


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["20m", "150m"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"], help="bfloat16: autocast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a step, padding included")
    parser.add_argument("--row-tokens", type=int, default=2048, help="of the long rows; the short ones have a quarter")
    parser.add_argument("--mean", type=int, default=400, help="tokens of a document, on average")
    parser.add_argument("--threads", type=int, default=None, help="default: every core this process may use")
    parser.add_argument("--no-compile", action="store_true", help="eager only")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="also write a table of operations per side and case")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, to see that it works; its figures mean nothing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds, options.tokens, options.row_tokens, options.mean = ["tiny"], 2, 512, 256, 50
    return options


def with_earlier(out: Path, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These results, and those of the file that are of other sizes, cases and number formats, each with the run it comes from."""

    def key(one: dict[str, Any]) -> tuple[str, ...]:
        return one["size"], one["case"], one["dtype"]

    new = {key(one) for one in results}
    earlier = read_json(out)["results"] if out.exists() else []
    return sorted([one for one in earlier if key(one) not in new] + results, key=lambda one: (list(SIZES).index(one["size"]), key(one)))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    facts = provenance("torch", "transformers")
    torch.set_num_threads(options.threads or facts["machine"]["cores"])
    run = {**facts, "threads": torch.get_num_threads(), "data": describe(options.row_tokens, options.mean), "rounds": options.rounds}
    results: list[dict[str, Any]] = []
    for size in options.sizes:
        for dtype in options.dtypes:
            results += [{**one, "run": run} for one in run_size(size, dtype == "bfloat16", options)]
    out = options.out or (None if options.quick else OUT)
    if out is not None:
        results = with_earlier(out, results)
        sizes = dict.fromkeys(one["size"] for one in results)
        models = {size: {**SIZES[size].to_dict(), "parameters": count_parameters(SIZES[size])} for size in sizes}
        write_json(out, {"models": models, "results": results, "best_of_each_side": best_dtypes(results)})
        print(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
