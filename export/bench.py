"""How fast a package runs here, and how near that is to what the machine's memory allows.

Decoding reads every weight and the cache once per token, so tokens/s x bytes per token cannot exceed the memory's bandwidth. That limit is
measured in the same run with the triad of the STREAM benchmark, a = b + s c, on arrays too large for any cache and as many threads.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.provenance import peak_rss_bytes
from export.session import Package, load_package

TRIAD_VALUES = 1 << 25  # float32 values per array: 128 MiB
TRIAD_ROUNDS = 6


def bench(folder: str | Path, prompt_tokens: int = 512, new_tokens: int = 64, threads: int = 0) -> dict[str, Any]:
    """Prompt and decode speed, load time, peak memory and the share of the bandwidth limit, as a flat dict.

    A prompt of random tokens is fed in chunks; then tokens are decoded one by one (median time). `threads` 0 takes one per core. The
    prompt is shortened where the context does not hold it, and the result says how long it was.
    """
    threads = threads or usable_cores()
    began = time.perf_counter()
    package = load_package(folder, threads)
    load_s = time.perf_counter() - began
    new_tokens = min(new_tokens, package.context // 2)
    prompt_tokens = min(prompt_tokens, package.context - new_tokens)
    if new_tokens < 1 or prompt_tokens < 1:
        raise InputError(f"{folder}: a context of {package.context} tokens is too short to measure")
    prompt_s, decode_s = measure(package, prompt_tokens, new_tokens)
    peak = peak_rss_bytes()  # before the triad's own arrays and torch
    limits = package.manifest["limits"]
    streamed = limits["weight_bytes_per_token"] + limits["kv_bytes_per_token"] * (prompt_tokens + new_tokens // 2)
    bandwidth = triad_bandwidth(threads)
    return {
        "prompt_tokens_per_s": prompt_tokens / prompt_s,
        "decode_tokens_per_s": 1 / decode_s,
        "load_s": load_s,
        "peak_rss_bytes": peak,
        "bandwidth_bytes_per_s": bandwidth,
        "achieved_over_limit": streamed / decode_s / bandwidth,
        "streamed_bytes_per_token": streamed,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "threads": threads,
        "package_bytes": sum(one["bytes"] for one in package.manifest["files"].values()),
    }


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(package: Package, prompt_tokens: int, new_tokens: int) -> tuple[float, float]:
    """Seconds for the prompt and median seconds per decoded token, after one warm-up of both."""
    ids = np.random.default_rng(0).integers(0, package.runner.vocab_size, prompt_tokens).tolist()
    package.runner.reserve(prompt_tokens + new_tokens)
    package.runner.prefill(ids[: min(16, prompt_tokens)])
    package.runner.forget()
    began = time.perf_counter()
    logits = package.runner.prefill(ids)
    prompt_s = time.perf_counter() - began
    steps: list[float] = []
    for _ in range(new_tokens):
        token = int(logits.argmax())
        began = time.perf_counter()
        logits = package.runner.feed([token])
        steps.append(time.perf_counter() - began)
    return prompt_s, float(np.median(steps))


def triad_bandwidth(threads: int) -> float:
    """Bytes per second of a = b + s c over three arrays, the best of some rounds; reads and writes counted once each."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b, c = (torch.full((TRIAD_VALUES,), value) for value in (0.0, 1.0, 2.0))
        best = float("inf")
        for _ in range(TRIAD_ROUNDS):
            began = time.perf_counter()
            torch.add(b, c, alpha=3.0, out=a)
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return 3 * 4 * TRIAD_VALUES / best
