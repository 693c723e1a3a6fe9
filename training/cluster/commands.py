"""The verb launch."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import typer

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder
from training.cluster.hosts import read_hosts
from training.cluster.nodes import SshNode
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe


def launch(
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
    dry_run: bool = typer.Option(False, help="Print the command line of every machine, and start nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Pretrain on several machines: checks before the start, restarts from the last checkpoint, hangs named."""
    import json

    if sum((hosts is not None, slurm, bool(rehearse))) != 1:
        raise InputError("launch: one of --hosts FILE, --slurm and --rehearse NAME is needed")
    settings = Recipe.load(recipe, overrides=set_)
    if rehearse:
        rehearse_here(rehearse, as_json)
        return
    run_settings = settings.section("run", RunRecipe)
    model, section = settings.section("model", ModelRecipe), settings.section("pretrain", PretrainRecipe)
    layout = settings.section("layout", LayoutRecipe)
    run = RunFolder.open(out or run_settings.folder)
    from training.job import Job, make_plan

    where = {"tokens": run.tokens.resolve(), "tokenizer": run.tokenizer.resolve(), "out": run.pretrain.resolve()}
    job = Job(recipe=section, model=model, layout=layout, seed=run_settings.seed, edit_mixture=edit_mixture, **where)  # type: ignore[arg-type]
    if slurm:
        from training.cluster.slurm import batch_script

        make_plan(job, nodes * gpus_per_node)
        print(batch_script(recipe, set_, out, nodes, gpus_per_node, hang_seconds), end="")
        return
    from training.cluster.supervisor import Settings, Supervisor

    assert hosts is not None
    machines = [SshNode(host.name, host.name, host.slots, interface) for host in read_hosts(hosts)]
    plan = make_plan(job, sum(machine.slots for machine in machines))
    patience = Settings(restarts=restarts, hang_seconds=hang_seconds, verify=verify)
    supervisor = Supervisor(job, plan, machines, patience, sys.stderr)
    if dry_run:
        for number, machine in enumerate(machines):
            print(" ".join(machine.wrap(supervisor.command(number, 29_500, "RUN", job.out / "logs"), {})))
        return
    settings.save(run.recipe)
    result = supervisor.run()
    print(json.dumps(result) if as_json else f"launch: {result['tokens']:,} tokens, last loss {result['loss']:.3f} -> {result['model']}")


def rehearse_here(name: str, as_json: bool) -> None:
    """Everything that can go wrong, in small, on this machine; exit code 1 where something did not end as it must."""
    import json

    from training.cluster.rehearsal import rehearse

    with tempfile.TemporaryDirectory(prefix="phial-rehearsal-") as folder:
        found = rehearse(Path(folder), [] if name == "all" else [name], None, sys.stderr)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        print(f"rehearsal: {sum(one.passed for one in found)} of {len(found)} scenarios ended as they must")
    if not all(one.passed for one in found):
        raise typer.Exit(1)
