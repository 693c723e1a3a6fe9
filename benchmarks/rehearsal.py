"""Every fault of a launch, rehearsed on two nodes of this machine: `python -m benchmarks.rehearsal [--out FILE]`.

Nodes are network namespaces where they are allowed. Writes benchmarks/results/rehearsal.json: how each scenario ended, after how many
restarts, how far the losses were from the undisturbed run's.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from training.cluster.rehearsal import RECIPE, SETTINGS, rehearse, two_nodes

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "rehearsal.json")
    options = parser.parse_args(arguments)
    with two_nodes() as nodes:
        kind = type(nodes[0]).__name__
    with tempfile.TemporaryDirectory(prefix="phial-rehearsal-") as folder:
        found = rehearse(Path(folder), [], None, sys.stdout)
    record = {
        **provenance("torch", "deepspeed"),
        "nodes": kind,
        "steps": RECIPE.num_steps,
        "settings": asdict(SETTINGS),
        "scenarios": [asdict(one) for one in found],
    }
    write_json(options.out, record)
    if any(one.passed is False for one in found):
        raise SystemExit("rehearsal: a scenario did not end as it must")


if __name__ == "__main__":
    main()
