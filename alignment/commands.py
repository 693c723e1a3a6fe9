"""`phial sft` and `phial dpo`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of one in recipes/.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; the recipe's [run] folder by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides a setting; may be given again.")]
Model = Annotated[Path | None, typer.Option(help="A model folder of your own, instead of the run's.")]
Data = Annotated[Path | None, typer.Option(help="A JSON-lines file of your own, instead of the run's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints the result as one JSON object.")]


def sft(
    recipe: RecipeName, out: Out = None, overrides: Set = None, model: Model = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Supervised fine-tuning on chat rows, loss on the answers only.

    Reads RUN/pretrain/model and RUN/synthetic/sft.jsonl, writes RUN/sft/model and RUN/sft/metrics.jsonl.
    """
    from alignment.recipe import SftRecipe

    read = Recipe.load(recipe, overrides)
    section, base, run = read.section("sft", SftRecipe), read.section("run", RunRecipe), open_run(read, out)
    model = earlier(model, run.pretrain / "model", "phial pretrain", "--model")
    data = earlier(data, run.synthetic / "sft.jsonl", "phial data synthesize", "--data")
    read.save(run.recipe)
    with progress_bar("sft", as_json) as progress:
        from alignment.sft import fine_tune

        result = fine_tune(section, model, data, run.sft, base.seed, progress)
    report(result, run.sft / "model", as_json)


def dpo(
    recipe: RecipeName, out: Out = None, overrides: Set = None, model: Model = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Direct preference optimisation on chosen and rejected answers.

    Reads RUN/sft/model and RUN/synthetic/dpo.jsonl, writes RUN/dpo/model and RUN/dpo/metrics.jsonl.
    """
    from alignment.recipe import DpoRecipe

    read = Recipe.load(recipe, overrides)
    section, base, run = read.section("dpo", DpoRecipe), read.section("run", RunRecipe), open_run(read, out)
    model = earlier(model, run.sft / "model", "phial sft", "--model")
    data = earlier(data, run.synthetic / "dpo.jsonl", "phial data synthesize", "--data")
    read.save(run.recipe)
    with progress_bar("dpo", as_json) as progress:
        from alignment.dpo import prefer

        result = prefer(section, model, data, run.dpo, base.seed, progress)
    report(result, run.dpo / "model", as_json)


def open_run(recipe: Recipe, out: Path | None) -> RunFolder:
    return RunFolder.open(out or recipe.section("run", RunRecipe).folder)


def earlier(given: Path | None, default: Path, verb: str, option: str) -> Path:
    """The path that was given, else that of the earlier stage; InputError names the verb that makes it."""
    if given is not None:
        if not given.exists():
            raise InputError(f"{option} {given}: no such path")
        return given
    if not default.exists():
        raise InputError(f"{default}: not there; run `{verb}` first, or give {option}")
    return default


@contextmanager
def progress_bar(verb: str, silent: bool) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A bar on standard error with the latest loss; nothing where standard error is no terminal or JSON is asked for."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[latest]}"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=silent or not console.is_terminal) as bar:
        task = bar.add_task(verb, total=None, latest="loading")

        def advance(step: int, steps: int, metrics: dict[str, float]) -> None:
            latest = f"loss {metrics['loss']:.3f}" if "loss" in metrics else ""
            if "rewards/accuracies" in metrics:
                latest += f", chosen preferred {metrics['rewards/accuracies']:.0%}"
            bar.update(task, completed=step, total=steps, latest=latest)

        yield advance


def report(result: dict[str, Any], model: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**result, "model": str(model)}))
        return
    print(
        f"{model}: {result['steps']} steps over {result['rows'] - result['dropped_rows']} rows, {result['trained_tokens']:,} answer tokens "
        f"of {result['tokens']:,}; loss {result['loss_first']:.3f} to {result['loss_last']:.3f}; "
        f"{result['seconds']:.0f} s, {result['cpu_seconds']:.0f} CPU s, {result['peak_rss_bytes'] / 2**30:.1f} GiB"
    )
    if result["dropped_rows"]:
        print(f"{result['dropped_rows']} rows longer than max_length were dropped")
    if result["resumed_from"]:
        print(f"resumed from step {result['resumed_from']}")
