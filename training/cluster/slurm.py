"""A batch script for Slurm: one torchrun per machine through srun, and requeued from the last checkpoint where that fails."""

import shlex
import sys
from pathlib import Path

from training.cluster.nodes import ROOT

BUDGET = 20  # requeues


def prepare_arguments(recipe: str, overrides: list[str], out: Path | None, edit_mixture: bool) -> list[str]:
    """What `training.cluster.prepare` is called with, paths absolute."""
    options = [word for override in overrides for word in ("--set", override)]
    if out is not None:
        options += ["--out", str(out.resolve())]
    if edit_mixture:
        options.append("--edit-mixture")
    named = str(Path(recipe).resolve()) if Path(recipe).exists() else recipe  # else it is the name of one in recipes/
    return [named, *options]


def batch_script(
    recipe: str,
    overrides: list[str],
    out: Path | None,
    nodes: int,
    per_node: int,
    hang_seconds: float,
    *,
    threads: int = 0,
    restarts: int = BUDGET,
    interface: str = "",
    edit_mixture: bool = False,
    verify: bool = False,
) -> str:
    """The script's text. Slurm starts it again after a requeue; the run then goes on from its last complete checkpoint.

    The job works in the folder where this is called, so that relative paths in a recipe and in overrides mean what they mean here; `recipe`
    and `out` are made absolute. `threads` are each rank's: 0 shares out the cores that Slurm gives the job there.

    A line that a user has to act on (exit code 2 and error.json) is not tried again, nor is a run that was requeued `restarts` times. The
    hold that Slurm puts on a requeued job (two minutes by default) is Slurm's.
    """
    arguments = shlex.join(prepare_arguments(recipe, overrides, out, edit_mixture))
    python = shlex.quote(sys.executable)
    shared_out = f"${{OMP_NUM_THREADS:-$(( $(nproc) > {per_node} ? $(nproc) / {per_node} : 1 ))}}"
    share = str(threads) if threads else shared_out
    gloo = f"export GLOO_SOCKET_IFNAME={shlex.quote(interface)}\n" if interface else ""
    check = f'srun --kill-on-bad-exit=1 {python} -m training.cluster.verify "$JOB" || exit 2'
    hashes = f'if [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then {check}; fi\n' if verify else ""
    return f"""#!/bin/bash
#SBATCH --job-name=phial
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=phial-%j.log
# Partition, account, time, GPUs and cores of your cluster go here, e.g. #SBATCH --gpus-per-node={per_node} and #SBATCH --cpus-per-task=...
set -u
cd {shlex.quote(str(Path.cwd()))} || exit 2
export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}
export MASTER_ADDR=${{MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}}
export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${{SLURM_RESTART_COUNT:-0}}) % 30000))
export PHIAL_HANG_SECONDS={hang_seconds:g} PHIAL_HANG_EXIT=1 PYTHONUNBUFFERED=1
{gloo}JOB=$({python} -m training.cluster.prepare {arguments} --ranks {nodes * per_node}) || exit 2
{hashes}export PHIAL_PYTHON={python}
srun --kill-on-bad-exit=1 bash -c 'export OMP_NUM_THREADS={share}
"$PHIAL_PYTHON" -m torch.distributed.run \\
    --nnodes={nodes} --node-rank="$SLURM_NODEID" --nproc-per-node={per_node} --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \\
    --max-restarts=0 -m training.worker "$0"' "$JOB"
CODE=$?
[ "$CODE" = 0 ] && exit 0
# A line for the user: nothing that another start would mend.
if [ -e "$(dirname "$JOB")/error.json" ] && ! grep -q rewound "$(dirname "$JOB")/error.json"; then
    cat "$(dirname "$JOB")/error.json"
    exit 2
fi
if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {restarts} ]; then
    echo "phial: requeued {restarts} times; given up"
    exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
"""
