"""Peak memory and time of the head and the next-token loss, forward and backward: in chunks against the plain form.

    python -m benchmarks.loss_memory [--tokens 4096] [--width 1024]

Each case runs in a process of its own, at vocabularies 32,064 and 100,352, with float32 products and with bfloat16 autocast over float32
weights. Memory is the process's peak less what it held before, the inputs: so the gradients of hidden states and head are in both
figures. Writes benchmarks/results/loss_memory.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from data_pipeline.provenance import peak_rss_bytes, provenance
from modeling.loss import fused_next_token_loss, next_token_loss

OUT = Path(__file__).resolve().parent / "results/loss_memory.json"
VOCABULARIES = (32_064, 100_352)


def measure(form: str, vocabulary: int, precision: str, tokens: int, width: int) -> dict[str, float]:
    """One forward and backward pass in this process: bytes above the inputs, seconds, and the loss."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(1, tokens, width, generator=generator).requires_grad_()
    head_VD = torch.randn(vocabulary, width, generator=generator).mul_(0.02).requires_grad_()
    targets_BT = torch.randint(0, vocabulary, (1, tokens), generator=generator)
    before, began = peak_rss_bytes(), time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        if form == "fused":
            loss = fused_next_token_loss(hidden_BTD, head_VD, targets_BT)
        else:
            loss = next_token_loss(functional.linear(hidden_BTD, head_VD), targets_BT)
    loss.backward()
    return {"bytes": peak_rss_bytes() - before, "seconds": time.perf_counter() - began, "loss": loss.item()}


def in_child(form: str, vocabulary: int, precision: str, tokens: int, width: int) -> dict[str, float]:
    """`measure` in a process of its own, whose peak nothing before has raised."""
    command = [sys.executable, "-m", "benchmarks.loss_memory", "--case", form, str(vocabulary), precision]
    command += ["--tokens", str(tokens), "--width", str(width)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(tokens: int, width: int) -> list[dict[str, Any]]:
    """All cases, each printed as it is done."""
    rows = []
    for vocabulary in VOCABULARIES:
        for precision in ("float32", "bfloat16"):
            fused, plain = (in_child(form, vocabulary, precision, tokens, width) for form in ("fused", "plain"))
            ratio = plain["bytes"] / fused["bytes"]
            rows.append({"vocabulary": vocabulary, "precision": precision, "fused": fused, "plain": plain, "bytes_ratio": round(ratio, 2)})
            print(
                f"{vocabulary:>7,} {precision:8}  plain {plain['bytes'] / 2**20:7.0f} MiB {plain['seconds']:5.1f} s"
                f"  fused {fused['bytes'] / 2**20:6.0f} MiB {fused['seconds']:5.1f} s  memory {ratio:.1f}x less"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--case", nargs=3, metavar=("FORM", "VOCABULARY", "PRECISION"), help="one case in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        form, vocabulary, precision = arguments.case
        print(json.dumps(measure(form, int(vocabulary), precision, arguments.tokens, arguments.width)))
        return
    shape = {"tokens": arguments.tokens, "width": arguments.width, "threads": 1}
    results = {**provenance("torch"), **shape, "cases": compare(arguments.tokens, arguments.width)}
    OUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
