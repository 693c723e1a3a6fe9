"""How the parallel layers scale: measured on two ranks of this machine, counted in bytes, simulated and modelled for many GPUs.

    python -m benchmarks.scaling [--parts decoder fno bytes modelled memory] [--quick] [--out FILE] [--plot FILE]

    decoder   one layer, forward and backward, on 1 and 2 gloo ranks of one thread: tensor, sequence and context parallelism   measured
    fno       a Fourier neural operator likewise                                                                              measured
    memory    a limit under which one rank dies of memory and two train                                                       measured
    bytes     halo against ring attention, truncated against untruncated transposes: closed forms, equal to ledgers            counted
    modelled  ranks of a 768-GPU field run beside ranks that do not exist                                                     simulated
              fields on up to 768 and decoders on up to 512 GPUs by an alpha-beta model                                       modelled

Every figure carries its kind, and kinds are never mixed. Efficiency is T1 / Tp at equal work per rank (weak) or T1 / (p Tp) at equal work
in all (strong), the median over rounds; T1 is taken fairly, beside the same work without communication on the other core, and plainly, with
the other core idle. Parts that are not asked for stay in the file as they were, each with its own machine, commit and date. Writes
benchmarks/results/scaling.json and docs/images/scaling.svg (`--quick`, whose figures mean nothing, only with --out).
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.scaling_parts.summary import SUMMARIES
from data_pipeline.errors import InputError
from data_pipeline.provenance import provenance
from data_pipeline.storage import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "scaling.json"
PLOT = Path(__file__).parent.parent / "docs" / "images" / "scaling.svg"
KINDS = {
    "measured": "by clock or memory meter on the machine named",
    "counted": "exact, by closed form; asserted equal to the ledger of runs",
    "simulated": "a rank that ran for real beside ranks that do not exist",
    "modelled": "by a formula with the constants stated; nothing of it was run",
}
GOAL = 0.9


def decoder(quick: bool) -> dict[str, Any]:
    from benchmarks.scaling_parts import block
    from benchmarks.scaling_parts.launch import on_ranks

    size = block.QUICK if quick else block.FULL
    found = block.summarise_ways(size, on_ranks(2, block.measure_ways, size))
    return {"kind": "measured", "weak_efficiency_goal": GOAL, **found}


def fno(quick: bool) -> dict[str, Any]:
    from benchmarks.scaling_parts import operator_step
    from benchmarks.scaling_parts.launch import on_ranks

    size = operator_step.QUICK if quick else operator_step.FULL
    found = operator_step.summarise_field(size, on_ranks(2, operator_step.measure_field, size))
    return {"kind": "measured", "weak_efficiency_goal": GOAL, **found}


def sent(quick: bool) -> dict[str, Any]:
    from benchmarks.scaling_parts.sent_bytes import count_context, count_fields

    return {"kind": "counted", "context": count_context(quick), "fno": count_fields()}


def modelled(quick: bool) -> dict[str, Any]:
    from benchmarks.scaling_parts.decoders_modelled import model_decoders
    from benchmarks.scaling_parts.fields_modelled import model_fields, run_ranks
    from benchmarks.scaling_parts.gpu_model import constants

    ranks = run_ranks(quick)
    return {
        "kind": "modelled",
        "constants": constants(),
        "fno_ranks": ranks,
        "fno": model_fields(ranks),
        "decoders": model_decoders(),
    }


def memory(quick: bool) -> dict[str, Any]:
    from benchmarks.scaling_parts import memory_limit

    return memory_limit.measure_limit(memory_limit.QUICK if quick else memory_limit.FULL)


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "decoder": decoder,
    "fno": fno,
    "bytes": sent,
    "modelled": modelled,
    "memory": memory,
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    if not options.quick:
        options.out, options.plot = options.out or RESULTS, options.plot or PLOT
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The parts asked for, written as each is done, beside what the file already holds."""
    record = read_json(options.out) if options.out is not None and options.out.exists() else {"kinds": KINDS, "parts": {}}
    if not isinstance(record, dict) or "parts" not in record:
        raise InputError(f"{options.out}: not a results file of this benchmark; give another --out")
    for part in options.parts:
        facts = {**provenance("torch"), "load_average": round(os.getloadavg()[0], 2)}
        found = PARTS[part](options.quick)
        record["parts"][part] = facts | {"quick": options.quick} | found
        for line in SUMMARIES[part](found):
            print(line, flush=True)
        if options.out is not None:
            write_json(options.out, record)
    return record


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        record = run(options)
    except InputError as error:
        print(f"scaling: {error}", file=sys.stderr)
        sys.exit(2)
    if options.plot is not None:
        from benchmarks.scaling_parts.plot import draw

        draw(record, options.plot)
        print(f"drawn to {options.plot}")


if __name__ == "__main__":
    main()
