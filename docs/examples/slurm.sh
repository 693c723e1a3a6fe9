#!/bin/bash
# Sixteen workers as one array; each may be killed, requeued, or come late.
#   sbatch docs/examples/slurm.sh /shared/runs/mine/tasks
#SBATCH --job-name=phial-worker
#SBATCH --array=0-15
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

# The folder from which sbatch was called holds the code of the plan. Fourteen thousand seconds end before Slurm's limit does.
# With exec the worker itself gets Slurm's SIGTERM.
cd "${SLURM_SUBMIT_DIR}"
exec phial worker --journal "$1" --seconds 14000
