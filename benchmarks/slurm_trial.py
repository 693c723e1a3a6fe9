"""Slurm for real on one machine: `python -m benchmarks.slurm_trial` (root; Debian's slurmctld, slurmd, slurm-client, munge).

A controller and two slurmd in network namespaces; the batch script that `phial launch --slurm` prints is submitted, a rank is killed, the
job requeues itself, goes on from the last checkpoint and ends with the undisturbed run's losses. Writes results/slurm_trial.json.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from training.cluster.nodes import NamespaceNode
from training.cluster.rehearsal import NETWORK, PREFIX, RECIPE, ip, losses_of, two_nodes, write_corpus
from training.cluster.slurm import batch_script
from training.cluster.watchdog import read_heartbeats

RESULTS = Path(__file__).parent / "results"
HEAD = f"{NETWORK}.254"
STEPS = 400


def configuration(folder: Path) -> str:
    """The smallest slurm.conf that two nodes of this machine run under."""
    nodes = "\n".join(
        f"NodeName={PREFIX}-{letter} NodeAddr={NETWORK}.{number} CPUs=2 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=2000"
        for number, letter in enumerate("ab", 1)
    )
    return f"""ClusterName=phial
SlurmctldHost={PREFIX}-head({HEAD})
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def start_cluster(folder: Path, stack: ExitStack) -> dict[str, str]:
    """munged, the controller and both slurmd, each with a host name of its own; returns the environment of Slurm's commands."""
    ip("addr", "add", f"{HEAD}/24", "dev", f"{PREFIX}br")
    (folder / "slurm.conf").write_text(configuration(folder))
    (folder / "state").mkdir()
    subprocess.run(["mkdir", "-p", "/run/munge"], check=True)
    subprocess.run(["chown", "munge:munge", "/run/munge"], check=True)
    subprocess.run(["pkill", "-x", "munged"], check=False)
    subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)
    stack.callback(subprocess.run, ["pkill", "-x", "munged"], check=False)

    def daemon(name: str, command: str, space: list[str]) -> None:
        log = stack.enter_context((folder / f"{name}.log").open("wb"))
        line = [*space, "unshare", "--uts", "sh", "-c", f"hostname {name} && exec {command} -D -f {folder}/slurm.conf"]
        process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        stack.callback(process.wait)
        stack.callback(process.kill)

    daemon(f"{PREFIX}-head", "slurmctld", [])
    for letter in "ab":
        node = f"{PREFIX}-{letter}"
        daemon(node, f"slurmd -N {node}", ["nsenter", f"--net=/run/netns/{node}"])
    return {
        **os.environ,
        "SLURM_CONF": f"{folder}/slurm.conf",
        "MASTER_ADDR": f"{NETWORK}.1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
    }


def ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def wait_for(what: str, condition: Any, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit(f"slurm_trial: {what}: not so after {seconds:g} s")
        time.sleep(0.2)


def submit(folder: Path, name: str, environment: dict[str, str]) -> str:
    """A run of its own folder; returns the job's number."""
    run = folder / name
    run.mkdir()
    for part in ("tokens", "tokenizer"):
        (run / part).symlink_to(folder / part)
    recipe = RECIPE.model_copy(
        update={"phases": (RECIPE.phases[0].model_copy(update={"steps": STEPS}),), "checkpoint_every": 50, "log_every": 5}
    )
    tables = {"run": {"folder": str(run), "seed": 5}, "model": {"preset": "tiny"}, "pretrain": recipe.model_dump(mode="json")}
    (run / "recipe-in.toml").write_text(tomli_w.dumps(tables))
    script = run / "job.sh"
    script.write_text(batch_script(str(run / "recipe-in.toml"), [], run, 2, 1, 60))
    return ask(environment, "sbatch", "--parsable", f"--output={run}/job.log", str(script))


def state(environment: dict[str, str], job: str) -> str:
    told = ask(environment, "scontrol", "show", "job", job)
    return next(word.removeprefix("JobState=") for word in told.split() if word.startswith("JobState="))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "slurm_trial.json")
    parser.add_argument("--keep", type=Path, help="a folder to work in that stays")
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {**provenance("torch", "deepspeed")}
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phial-slurm-")))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        nodes = stack.enter_context(two_nodes())
        if not isinstance(nodes[0], NamespaceNode):
            raise SystemExit("slurm_trial: network namespaces are needed, and root")
        write_corpus(folder)
        environment = start_cluster(folder, stack)
        record["slurm"] = ask(environment, "sinfo", "--version")
        wait_for("two idle nodes", lambda: "2/2" in f"{ask(environment, 'sinfo', '-h', '-o', '%D', '-t', 'idle')}/2", 60)
        first = submit(folder, "undisturbed", environment)
        wait_for("the undisturbed job", lambda: state(environment, first) in ("COMPLETED", "FAILED"), 240)
        record["undisturbed"] = state(environment, first)
        began = time.monotonic()
        job = submit(folder, "killed", environment)
        out = folder / "killed" / "pretrain"
        wait_for("step 100", lambda: any(beat["step"] >= 120 for beat in read_heartbeats(out).values()), 240)
        os.kill(read_heartbeats(out)[1]["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for("the requeued job", lambda: state(environment, job) in ("COMPLETED", "FAILED"), 420)
        record["killed"] = {
            "state": state(environment, job),
            "restarts": int(ask(environment, "scontrol", "show", "job", job).split("Restarts=")[1].split()[0]),
            "seconds": round(time.monotonic() - began, 1),
            "seconds_from_kill_to_end": round(time.monotonic() - killed, 1),
        }
        pairs = zip(losses_of(out), losses_of(folder / "undisturbed" / "pretrain"), strict=True)
        record["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    write_json(options.out, record)
    print(record)
    good = record["killed"]["state"] == "COMPLETED" and record["killed"]["restarts"] == 1 and record["largest_loss_difference"] < 5e-6
    if not good:
        raise SystemExit("slurm_trial: the job did not end as it must")


if __name__ == "__main__":
    main()
