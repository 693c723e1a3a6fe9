"""A batch script for Slurm: one torchrun per machine through srun, and requeued from the last checkpoint where that fails."""

import shlex
from pathlib import Path

from training.cluster.nodes import ROOT

BUDGET = 20  # requeues


def batch_script(recipe: str, overrides: list[str], out: Path | None, nodes: int, per_node: int, hang_seconds: float) -> str:
    """The script's text. Slurm starts it again after a requeue; the run then goes on from its last complete checkpoint.

    A line that a user has to act on (exit code 2 and error.json) is not tried again, nor is a run that was requeued BUDGET times. The hold
    that Slurm puts on a requeued job (two minutes by default) is Slurm's.
    """
    options = [word for override in overrides for word in ("--set", override)]
    if out is not None:
        options += ["--out", str(out)]
    arguments = shlex.join([recipe, *options])
    return f"""#!/bin/bash
#SBATCH --job-name=phial
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=phial-%j.log
# Partition, account, time and GPUs of your cluster go here, e.g. #SBATCH --gpus-per-node={per_node}
set -u
cd {shlex.quote(str(ROOT))}
export MASTER_ADDR=${{MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}}
export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${{SLURM_RESTART_COUNT:-0}}) % 30000))
export PHIAL_HANG_SECONDS={hang_seconds:g} PHIAL_HANG_EXIT=1 PYTHONUNBUFFERED=1
JOB=$(.venv/bin/python -m training.cluster.prepare {arguments} --ranks {nodes * per_node}) || exit 2
srun --kill-on-bad-exit=1 bash -c '.venv/bin/python -m torch.distributed.run \\
    --nnodes={nodes} --node-rank="$SLURM_NODEID" --nproc-per-node={per_node} --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \\
    --max-restarts=0 -m training.worker "$0"' "$JOB"
CODE=$?
[ "$CODE" = 0 ] && exit 0
# A line for the user: nothing that another start would mend.
if [ -e "$(dirname "$JOB")/error.json" ] && ! grep -q rewound "$(dirname "$JOB")/error.json"; then
    cat "$(dirname "$JOB")/error.json"
    exit 2
fi
if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {BUDGET} ]; then
    echo "phial: requeued {BUDGET} times; given up"
    exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
"""
