"""The whole training step on one GPU: real models, ours and transformers', tokens per second, peak memory and MFU.

    python -m benchmarks.gpu --model phi3-mini-4k [--attention varlen] [--recompute none] [--float8] [--micro-rows M] [--out FILE]
    python -m benchmarks.gpu --trainer --model phi3-mini-4k      the trainer itself: data order, engine, log, and the plan's bytes
    python -m benchmarks.gpu --tests             the tests that need a GPU
    python -m benchmarks.gpu --model tiny --device cpu --no-compile      proves the script where there is no GPU

One call is one model and stays under `--minutes`. Weights are bfloat16 with float32 master copies and moments (16 bytes a parameter,
gradients included), rows are packed and documents kept apart; both sides use the same optimizer and read the same sequence of rows, as
many at a time as fit. Before timing, each way's loss and gradient norm on the first row must agree with the first way's, and documents must
not see one another. Needs no network.
MFU is printed by three counts of attention's work: "causal" as if one document filled the row, which the published figures do or exceed,
"full" with all pairs of the row, and "causal_own_documents", the work that packed rows need. Writes benchmarks/results/gpu-MODEL.json.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.step.gpu_models import CONTEXTS, DEFAULT_CONTEXT, GOAL, MEMBERS, MODELS, PUBLISHED, model_config
from benchmarks.step.gpu_sides import Way, device_facts
from benchmarks.step.gpu_trainer import Settings, measure_trainer
from benchmarks.step.gpu_trial import Trial
from benchmarks.step.rows import describe
from data_pipeline.errors import InputError
from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from modeling.config import DecoderConfig
from modeling.counts import count_parameters
from modeling.errors import ModelError
from modeling.recompute import RECOMPUTE

RESULTS = Path(__file__).parent / "results"
OVERDUE = 4  # exit code of a call that had to be stopped


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="phi3-mini-4k")
    parser.add_argument("--sides", nargs="+", choices=["phial", "transformers"], default=["phial", "transformers"])
    parser.add_argument("--attention", nargs="+", choices=["flex", "varlen", "flash", "sdpa"], help="ours; several are tried in turn")
    parser.add_argument("--their-attention", nargs="+", choices=["sdpa", "flex_attention", "flash_attention_2"])
    parser.add_argument("--recompute", choices=RECOMPUTE, default="none", help="transformers: anything but none is its checkpointing")
    parser.add_argument("--their-recompute", choices=["none", "full"], help="default: full where --recompute is not none")
    parser.add_argument("--float8", action="store_true", help="ours with float8 linear layers")
    parser.add_argument("--micro-rows", type=int, default=0, help="rows at a time; default: as many as fit")
    parser.add_argument("--accumulate", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--context", type=int, help="tokens of a row; default: what the model was first trained at")
    parser.add_argument("--mean", type=int, default=400, help="tokens of a document on average; 0: one document fills the row")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each way")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="also write a table of kernels for each way")
    parser.add_argument("--trainer", action="store_true", help="time the trainer's own loop instead of single steps; presets only")
    parser.add_argument("--tests", action="store_true", help="run the tests marked gpu instead")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    for name in ("accumulate", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    return options


def ways(options: argparse.Namespace, config: DecoderConfig) -> list[Way]:
    """Everything this call tries, ours first."""
    compiled = not options.no_compile
    found: list[Way] = []
    if "phial" in options.sides:
        own = options.attention or [default_attention(options.device, config)]
        found += [Way("phial", name, compiled, options.recompute, options.float8) for name in own]
    if "transformers" in options.sides and config.blocksparse is not None:
        print("transformers has no phi-3-small, so ours stands alone", flush=True)
    elif "transformers" in options.sides:
        recompute = options.their_recompute or ("none" if options.recompute == "none" else "full")
        found += [Way("transformers", name, compiled, recompute) for name in options.their_attention or their_attentions(options.device)]
    return found


def default_attention(device: str, config: DecoderConfig) -> str:
    if device == "cpu":
        return "sdpa"
    return "flex" if config.blocksparse is not None else "varlen"


def their_attentions(device: str) -> list[str]:
    """Flash where it is installed, which needs no mask; else the two kinds that keep packed documents apart without it."""
    if device == "cpu":
        return ["sdpa"]
    return ["flash_attention_2"] if importlib.util.find_spec("flash_attn") else ["flex_attention", "sdpa"]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs every way; one that fails says why and does not stop the others."""
    device, config = torch.device(options.device), model_config(options.model)
    context = options.context or CONTEXTS.get(options.model, DEFAULT_CONTEXT)
    settings = {"context": context, "rows": options.micro_rows, "accumulate": options.accumulate, "steps": options.steps}
    settings["mean"] = options.mean if context > 64 else min(options.mean, 16)
    todo = ways(options, config)
    record: dict[str, Any] = {
        **provenance("torch", "transformers", "flash_attn", "torchao"),
        "device": device_facts(device),
        "model": {"name": options.model, "parameters": count_parameters(config), **config.to_dict()},
        "data": describe(context, settings["mean"]) if settings["mean"] else f"rows of {context} tokens, each one document",
        "published": PUBLISHED,
        "results": [],
    }
    print(f"{options.model}, {count_parameters(config):,} parameters, on {record['device']['name']}", flush=True)
    began = time.monotonic()
    reference: dict[str, Any] | None = None  # the first way that worked
    watch = watchdog(options, record)
    for number, way in enumerate(todo):
        until = began + 60 * options.minutes * 0.9 * (number + 1) / len(todo)
        name = f"{options.model}-{way}".replace(", ", "-").replace(" ", "-")
        try:
            profile_to = options.profile / f"{name}.txt" if options.profile else None
            result = Trial(config, way, device, settings, until).run(profile_to, reference)
            reference = reference or result
        except Exception as error:  # each way stands for itself; what failed is part of the record and of the exit code
            traceback.print_exc()
            result = {"way": str(way), "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        record["results"].append(result)
        print_result(result)
    watch.cancel()
    return record


def measure_the_trainer(options: argparse.Namespace) -> dict[str, Any]:
    """The trainer with the model's real size, and what the plan said of it."""
    if options.model not in MEMBERS:
        raise InputError(f"--trainer --model {options.model}: a recipe names presets; {', '.join(MEMBERS)} are allowed")
    device = torch.device(options.device)
    settings = Settings(
        preset=options.model,
        context=options.context or CONTEXTS.get(options.model, DEFAULT_CONTEXT),
        micro_rows=options.micro_rows,
        accumulate=options.accumulate,
        steps=options.steps,
        mean=options.mean or 10**6,
        recompute=options.recompute,
        compile=not options.no_compile,
    )
    record: dict[str, Any] = {**provenance("torch"), "device": device_facts(device), "settings": vars(settings), "published": PUBLISHED}
    watch = watchdog(options, record)
    with tempfile.TemporaryDirectory(prefix="phial-gpu-") as folder:
        found = measure_trainer(settings, device, Path(folder))
    watch.cancel()
    print(f"{found['way']}: {found['tokens_per_s_median']:,.0f} tokens/s, {found['micro_rows']} rows at a time", flush=True)
    if found["peak_bytes"]:
        planned = found["planned_bytes"]["total"]
        print(f"  peak {found['peak_bytes'] / 2**30:.2f} GiB, planned {planned / 2**30:.2f} ({found['planned_over_peak']:.3f} of it)")
        print(f"  MFU {statistics.median(found['mfu_causal']):.1%} causal, {statistics.median(found['mfu_full']):.1%} full; {PUBLISHED}")
    return {**record, **found}


def watchdog(options: argparse.Namespace, record: dict[str, Any]) -> threading.Timer:
    """Writes what there is and ends the process when the time is up, wherever it hangs."""

    def stop() -> None:
        write_json(out_file(options), {**record, "stopped": f"after {options.minutes} minutes"})
        print(f"stopped after {options.minutes} minutes; {out_file(options)} holds what was done", flush=True)
        os._exit(OVERDUE)

    timer = threading.Timer(60 * options.minutes, stop)
    timer.daemon = True
    timer.start()
    return timer


def out_file(options: argparse.Namespace) -> Path:
    if options.trainer and not options.out:
        return RESULTS / f"gpu-trainer-{options.model}.json"
    return options.out or RESULTS / f"gpu-{options.model}{'-float8' if options.float8 else ''}.json"


def print_result(result: dict[str, Any]) -> None:
    print(f"\n{result['way']}")
    if "error" in result:
        print(f"  failed: {result['error']}", flush=True)
        return
    memory = "not counted on a CPU" if result["peak_bytes"] is None else f"{result['peak_bytes'] / 2**30:.1f} GiB"
    step = sorted(result["step_s"])[len(result["step_s"]) // 2]
    print(f"  {result['tokens_per_s']:,.0f} tokens/s, step {step:.3f} s of {result['tokens_per_step']:,} tokens, peak memory {memory}")
    print(f"  {result['micro_rows']} rows at a time, loss {result['first_loss']:.3f} to {result['last_loss']:.3f}")
    shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in result["mfu"].items() if value is not None)
    print(f"  MFU {shown or 'unknown: the device is not in the table of peaks'}; goal {100 * GOAL:.0f} % causal; {PUBLISHED}", flush=True)


def run_tests() -> int:
    """The tests that need a GPU, in this interpreter."""
    import pytest

    return int(pytest.main(["-m", "gpu", "-q", "tests"]))


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu benchmark: no CUDA device here; --model tiny --device cpu proves the script without one", file=sys.stderr)
        return 2
    if options.tests:
        return run_tests()
    try:
        record = measure_the_trainer(options) if options.trainer else measure(options)
    except (InputError, ModelError) as error:
        print(f"gpu benchmark: {error}", file=sys.stderr)
        return 2
    write_json(out_file(options), record)
    print(f"\nwritten to {out_file(options)}")
    return 1 if any("error" in one for one in record.get("results", [])) else 0


if __name__ == "__main__":
    sys.exit(main())
