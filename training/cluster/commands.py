"""The verb launch."""

import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import is_local, write_json
from training.cluster.hosts import read_hosts
from training.cluster.nodes import SshNode
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.run_lock import run_lock

if TYPE_CHECKING:
    from training.cluster.supervisor import Supervisor


# What each way to launch has no use for.
FOREIGN = {
    "--hosts": ("nodes", "gpus_per_node"),
    "--slurm": ("dry_run", "as_json"),
    "--rehearse": ("set_", "out", "nodes", "gpus_per_node", "interface", "restarts", "hang_seconds", "verify", "edit_mixture", "dry_run"),
}


def launch(
    context: typer.Context,
    recipe: str = typer.Argument(..., help="A recipe: a TOML file, or the name of one in recipes/."),
    hosts: Path | None = typer.Option(None, help="A file with a line `name slots=N` for every machine, reached over ssh."),
    slurm: bool = typer.Option(False, help="Print the batch script for `sbatch`; give --nodes and --gpus-per-node."),
    rehearse: str = typer.Option("", help="Rehearse on this machine what can go wrong: `all`, or the name of one scenario."),
    nodes: int = typer.Option(1, min=1, max=100_000, help="Slurm: machines."),
    gpus_per_node: int = typer.Option(8, min=1, max=1024, help="Slurm: ranks of each machine."),
    out: Path | None = typer.Option(None, help="The run folder, on storage that every machine shares; by default [run] folder."),
    interface: str = typer.Option("", help="The network interface that gloo uses on every machine."),
    restarts: int = typer.Option(20, min=0, max=100_000, help="How often the whole run is started again."),
    hang_seconds: float = typer.Option(600.0, min=0.0, help="Without a step for so long the ranks hang: stacks, then a restart; 0: never."),
    verify: bool = typer.Option(False, help="Compare every token shard with its SHA-256 on every machine before the start."),
    set_: list[str] = typer.Option([], "--set", help="section.key=value, over the recipe; may be given several times."),
    edit_mixture: bool = typer.Option(False, help="Go on from the last checkpoint with the recipe's phases where they are other ones."),
    dry_run: bool = typer.Option(False, help="Write the job file, print the command line of every machine, and start nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Pretrain on several machines: checks before the start, restarts from the last checkpoint, hangs named."""
    import json

    if sum((hosts is not None, slurm, bool(rehearse))) != 1:
        raise InputError("launch: one of --hosts FILE, --slurm and --rehearse NAME is needed")
    refuse_foreign(context, "--hosts" if hosts else "--slurm" if slurm else "--rehearse")
    settings = Recipe.load(recipe, overrides=set_)
    if rehearse:
        rehearse_here(rehearse, as_json)
        return
    run_settings = settings.section("run", RunRecipe)
    model, section = settings.section("model", ModelRecipe), settings.section("pretrain", PretrainRecipe)
    layout = settings.section("layout", LayoutRecipe)
    run = RunFolder.open(out or run_settings.folder)
    from training.job import Job, make_plan

    section = section.model_copy(update=absolute_paths(section))
    where = {"tokens": run.tokens.resolve(), "tokenizer": run.tokenizer.resolve(), "out": run.pretrain.resolve()}
    job = Job(recipe=section, model=model, layout=layout, seed=run_settings.seed, edit_mixture=edit_mixture, **where)  # type: ignore[arg-type]
    if slurm:
        from training.cluster.slurm import batch_script
        from training.hardware import threads_of

        make_plan(job, nodes * gpus_per_node)
        threads = threads_of(section, gpus_per_node) if section.threads else 0
        more = {"restarts": restarts, "interface": interface, "edit_mixture": edit_mixture, "verify": verify, "threads": threads}
        print(batch_script(recipe, set_, run.root, nodes, gpus_per_node, hang_seconds, **more), end="")  # type: ignore[arg-type]
        return
    from training.cluster.supervisor import Settings, Supervisor

    assert hosts is not None
    machines = [SshNode(host.name, host.name, host.slots, interface) for host in read_hosts(hosts)]
    plan = make_plan(job, sum(machine.slots for machine in machines))
    patience = Settings(restarts=restarts, hang_seconds=hang_seconds, verify=verify)
    supervisor = Supervisor(job, plan, machines, patience, sys.stderr)
    if dry_run:
        for line in supervisor_lines(supervisor):
            print(line)
        return
    settings.save(run.recipe)
    result = supervisor.run()
    print(json.dumps(result) if as_json else f"launch: {result['tokens']:,} tokens, last loss {result['loss']:.3f} -> {result['model']}")


def refuse_foreign(context: typer.Context, way: str) -> None:
    """Refuses what was given and would be passed over."""
    names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in FOREIGN.get(way, ()):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"launch: {names[name]} means nothing with {way}; leave it out")


def absolute_paths(section: PretrainRecipe) -> dict[str, str]:
    """The recipe's own paths, seen from here: ranks on other machines work in another folder."""
    found = {name: getattr(section, name) for name in ("checkpoints", "benchmarks")}
    return {name: str(Path(path).resolve()) for name, path in found.items() if path and is_local(path) and "://" not in path}


def supervisor_lines(supervisor: "Supervisor") -> list[str]:
    """Each machine's command line for a shell, and the job file that they read. An agent started by hand waits for no supervisor."""
    supervisor.folder.mkdir(parents=True, exist_ok=True)
    with run_lock(supervisor.job.out):
        write_json(supervisor.folder / "job.json", supervisor.job.to_json())
    lines = []
    for number, machine in enumerate(supervisor.nodes):
        command = supervisor.command(number, 29_500, "RUN", supervisor.job.out / "logs")
        lines.append(shlex.join(machine.line(command, {**supervisor.environment(machine), "PHIAL_LEASE_SECONDS": "inf"})))
    return lines


def rehearse_here(name: str, as_json: bool) -> None:
    """Everything that can go wrong, in small, on this machine; exit code 1 where something did not end as it must."""
    import json

    from training.cluster.rehearsal import rehearse

    sys.stderr.write("rehearsal: trains a small recipe of its own, whatever RECIPE names\n")
    with tempfile.TemporaryDirectory(prefix="phial-rehearsal-") as folder:
        found = rehearse(Path(folder), [] if name == "all" else [name], None, sys.stderr)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        tried = [one for one in found if one.passed is not None]
        skipped = f", {len(found) - len(tried)} skipped" if len(tried) < len(found) else ""
        print(f"rehearsal: {sum(bool(one.passed) for one in tried)} of {len(tried)} scenarios ended as they must{skipped}")
    if any(one.passed is False for one in found):
        raise typer.Exit(1)
