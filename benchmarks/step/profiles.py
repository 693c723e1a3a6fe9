"""Where a step's time goes: a table of operations, by torch's profiler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def profile_step(step: Callable[[], Any], out: Path, rows: int = 40) -> str:
    """Runs one step under the profiler and writes its operations, those with the most time of their own first; returns the table."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        step()
        if cuda:
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=70)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table + "\n", encoding="utf-8")
    print(f"profile written to {out}", flush=True)
    return table
