"""All token shards of a run against their SHA-256: `python -m training.cluster.verify JOB.json` on every machine of a batch system.

How far it is stands in a line of its own every few seconds, by which others know that this machine is at work.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from data_pipeline.tokens.shards import TokenShards
from training.job import Job
from training.recipe import PretrainRecipe

SAY_SECONDS = 5.0
COMPARED = "GB of shards compared"  # how a line of progress ends


def sources_of(recipe: PretrainRecipe) -> list[str]:
    """Every source that is read: those with a weight, and the held-out ones."""
    return sorted({source for phase in recipe.phases for source, weight in phase.weights.items() if weight > 0} | set(recipe.validation))


def verify_shards(tokens: Path, sources: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Hashes the shards of all sources; one line for each source with a fault. `say` hears of progress every SAY_SECONDS."""
    faults: list[str] = []
    opened: dict[str, int] = {}
    for source in sources:
        try:
            opened[source] = TokenShards.open(tokens / source).num_bytes
        except (InputError, OSError) as error:
            faults.append(" ".join(str(error).split()))
    whole, done, said = sum(opened.values()), 0, 0.0

    def hashed(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"{done / 1e9:.1f} of {whole / 1e9:.1f} {COMPARED}")

    for source in opened:
        try:
            TokenShards.open(tokens / source, verify=True, on_hashed=hashed)
        except (InputError, OSError) as error:
            faults.append(" ".join(str(error).split()))
    return faults


def main(path: str) -> int:
    """0 where all is well, else 2 with one line for every fault on standard error."""
    job = Job.from_json(read_json(path))
    host = socket.gethostname()
    found = verify_shards(job.tokens, sources_of(job.recipe), lambda line: print(f"{host}: {line}", file=sys.stderr, flush=True))  # noqa: T201
    for fault in found:
        sys.stderr.write(f"phial: {host}: {fault}\n")
    return 2 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
