"""The whole chain on this machine from one command: raw pages in, a 4-bit model you can chat with out."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from data_pipeline.engine.journal import Done, Journal, Task, cpu_seconds, fingerprint, run_task
from data_pipeline.errors import InputError
from data_pipeline.provenance import peak_rss_bytes, provenance
from data_pipeline.recipe import Recipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import read_json, write_json
from demo_stages import MODELS, STAGES, Chain, sections_of

FORMAT = 1  # raised when a stage's output changes for the same recipe, so that older results are not taken for new ones


def run_chain(chain: Chain, console: Console) -> dict[str, Any]:
    """Does every stage that is not done, in order; then writes results.json and report.html and returns the results."""
    journal = Journal(chain.run.root)
    tasks = plan(chain)
    journal.plan(list(tasks.values()))
    begun, cpu_begun = time.perf_counter(), cpu_seconds()
    for stage in STAGES:
        with console.status(stage.name) as status:
            chain.status = status if console.is_terminal and stage.name != "pretrain" else None
            if chain.status is None:
                status.stop()
            kept: list[Done] = []
            done = run_task(
                journal,
                tasks[stage.name],
                list(stage.outputs),
                lambda stage=stage: {**stage.work(chain), "peak_rss_bytes": peak_rss_bytes(children=True)},
                kept.append,
                lambda why, stage=stage: chain.tell(f"{stage.name}: done again, because {why}"),
            )
        chain.records[stage.name] = done
        mark = "kept" if kept else f"{done.seconds:6.1f} s"
        console.print(f"[bold]{stage.name:<10}[/] [dim]{mark:>9}[/]  {escape(stage.line(done.record))}", highlight=False, soft_wrap=True)
    return finish(chain, time.perf_counter() - begun, cpu_seconds() - cpu_begun)


def plan(chain: Chain) -> dict[str, Task]:
    """One task per stage; its fingerprint covers the stage's settings and, through the stages it needs, everything before it."""
    tasks: dict[str, Task] = {}
    for stage in STAGES:
        settings = {name: chain.sections[name].model_dump(mode="json") for name in stage.sections}
        settings.get("run", {}).pop("folder", None)  # where a run lies does not decide what it makes
        before = [tasks[name].fingerprint for name in stage.needs]
        tasks[stage.name] = Task(id=stage.name, fingerprint=fingerprint(FORMAT, stage.name, settings, stage.decides(chain), before))
    return tasks


def finish(chain: Chain, wall_s: float, cpu_s: float) -> dict[str, Any]:
    """results.json and report.html, from the stages' records and the evaluation folders."""
    from eval.report import write_report
    from eval.summary import summarise

    stages = [
        {"name": name, "seconds": done.seconds, "cpu_seconds": done.cpu_seconds, "counts": done.record}
        for name, done in chain.records.items()
    ]
    results = {
        "format": 1,
        "stages": stages,
        **summarise({name: chain.run.eval / name for name in MODELS}),
        "benchmarks": benchmark_scores(chain),
        "quantization": chain.records["export"].record["check"],
        "bench": read_json(chain.run.root / "bench.json"),
        # What the stages took when they were done, this run or an earlier one; `this_run` leaves out what was kept.
        "wall_s": sum(done.seconds for done in chain.records.values()),
        "cpu_s": sum(done.cpu_seconds for done in chain.records.values()),
        "this_run": {"wall_s": wall_s, "cpu_s": cpu_s},
        "peak_rss_bytes": max(peak_rss_bytes(children=True), *(done.record.get("peak_rss_bytes", 0) for done in chain.records.values())),
        **provenance("torch", "transformers", "trl", "onnxruntime"),
        "seed": chain.seed,
        "ranks": chain.ranks,
    }
    write_json(chain.run.root / "results.json", results)
    write_report(chain.run.root, results)
    return results


def benchmark_scores(chain: Chain) -> dict[str, Any] | None:
    """The same scores on the user's own MMLU files, with the shots that were dropped; None where none were given."""
    from eval.summary import summarise

    if not chain.benchmarks:
        return None
    found = summarise({name: chain.run.eval / f"{name}-benchmarks" for name in MODELS})
    return {key: found[key] for key in ("multiple_choice", "families", "paired")}


def show_answers(chain: Chain, console: Console, count: int = 3) -> None:
    """A few held-out questions, answered by the package."""
    from data_pipeline.storage import read_json_lines
    from export import load_package

    package = load_package(chain.run.package)
    for row in list(read_json_lines(chain.run.held_out / "exercises.jsonl"))[:count]:
        answer = package.generate([{"role": "user", "content": row["question"]}], max_new_tokens=32)
        console.print(f"[dim]you[/]    {escape(row['question'])}\n[dim]model[/]  {escape(answer.strip())}", highlight=False, soft_wrap=True)


def check_benchmarks(folder: Path) -> None:
    """Reads the user's benchmark files once, so that a mistake in them is told before the stages, not after."""
    from data_pipeline.benchmarks import read_mmlu

    if not (folder / "mmlu").is_dir():
        raise InputError(f"{folder}: no folder mmlu in it; --benchmarks takes a folder with mmlu/dev and mmlu/test")
    for split in ("dev", "test"):
        read_mmlu(folder / "mmlu", split)


def command(
    out: Annotated[str | None, typer.Option(help="The run folder; else the recipe's [run] folder.")] = None,
    warc: Annotated[str | None, typer.Option(help="Your own crawl: a WARC path, URL (http, s3) or glob.")] = None,
    benchmarks: Annotated[str | None, typer.Option(help="A folder with the real MMLU files in mmlu/dev and mmlu/test.")] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that pretrain: 1 is plain torch, more use DeepSpeed ZeRO-1.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="All items of --benchmarks, not a sample.")] = False,
    recipe: Annotated[str, typer.Option(help="Another recipe than recipes/demo.toml.")] = "demo",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json at the end.")] = False,
) -> None:
    """The whole chain on this machine: raw pages in, a 4-bit model you can chat with out. Run it again to go on after an interruption."""
    loaded = Recipe.load(recipe, overrides)
    if warc == "":
        raise InputError("--warc is empty; a path, URL or glob is needed, or leave it out for the standard library's pages")
    if warc is not None:
        loaded.tables.setdefault("collect", {})["warc"] = warc
    sections = sections_of(loaded)
    if benchmarks is not None:
        check_benchmarks(Path(benchmarks))
    run = RunFolder.open(out or sections["run"].folder)
    console = Console(stderr=as_json)
    chain = Chain(
        recipe=loaded, sections=sections, run=run, seed=sections["run"].seed, ranks=ranks, benchmarks=benchmarks, full=full, console=console
    )
    with Journal(run.root).claim(Task(id="demo", fingerprint="")):  # one demo at a time in a folder
        loaded.save(run.recipe)
        results = run_chain(chain, console)
    if as_json:
        print(json.dumps(results))
        return
    show_answers(chain, console)
    console.print(
        f"\n{results['wall_s']:,.0f} s, {results['cpu_s']:,.0f} CPU seconds, at most {results['peak_rss_bytes'] / 2**30:.1f} GiB"
        f"\nreport   {run.root / 'report.html'}"
        f"\nchat     phial chat {run.package}"
        f"\nbrowser  phial serve {run.package}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
