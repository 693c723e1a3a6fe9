"""The verb plan."""

import json
import sys
from typing import Any

import typer
from rich.console import Console

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from training.plan.devices import find_device
from training.plan.plan import make_plan
from training.plan.report import show
from training.plan.run import shape_of
from training.plan.speed import KNOWN_MFU
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe


def plan(
    recipe: str = typer.Argument(..., help="A recipe: a TOML file, or the name of one in recipes/."),
    nodes: int = typer.Option(1, min=1, max=100_000, help="Machines."),
    gpus_per_node: int = typer.Option(8, min=1, max=1024, help="Accelerators of each."),
    gpu: str = typer.Option("h200", help="h200, h100, a100-80, a100-40, l40s, b200 or mi300x."),
    price: float | None = typer.Option(None, help="US dollars per accelerator and hour."),
    net_gbit: float | None = typer.Option(None, help="Network per accelerator between nodes, Gbit/s."),
    mfu: str = typer.Option(
        "", help="The interval of model FLOPs over the peak, as LOW,HIGH; by default what published runs and ours reached."
    ),
    set_: list[str] = typer.Option([], "--set", help="section.key=value, over the recipe; may be given several times."),
    as_json: bool = typer.Option(False, "--json", help="Print the plan as JSON."),
) -> None:
    """Parameters, FLOPs, bytes per rank and per collective of a run, exact; its speed and cost, modelled; the best layout."""
    settings = Recipe.load(recipe, overrides=set_)
    model, section = settings.section("model", ModelRecipe), settings.section("pretrain", PretrainRecipe)
    layout = settings.section("layout", LayoutRecipe)
    found = plan_of(model, section, layout, nodes, gpus_per_node, gpu, price, net_gbit, read_mfu(mfu))
    if as_json:
        print(json.dumps(found))
    else:
        show(found, Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160))


def plan_of(
    model: ModelRecipe,
    recipe: PretrainRecipe,
    layout: LayoutRecipe,
    nodes: int,
    gpus_per_node: int,
    gpu: str,
    price: float | None = None,
    net_gbit: float | None = None,
    mfu: tuple[float, float] = KNOWN_MFU,
) -> dict[str, Any]:
    """The plan of a recipe on so many accelerators; needs neither tokens nor a tokenizer."""
    if not recipe.phases:
        raise InputError("[pretrain] phases is empty; a plan needs the run's steps")
    config = model.config(model.preset_vocabulary())
    ranks = nodes * gpus_per_node
    precision = {"auto": "bfloat16-master"}.get(recipe.precision, recipe.precision)  # what it is on a GPU
    shape = shape_of(config, recipe, layout, ranks, precision)
    tokens = recipe.num_steps * shape.tokens_per_step
    return make_plan(shape, tokens, find_device(gpu, price, net_gbit), nodes, gpus_per_node, mfu)


def read_mfu(text: str) -> tuple[float, float]:
    """LOW,HIGH as parts of 1, or in per cent."""
    if not text:
        return KNOWN_MFU
    try:
        low, high = (float(part.strip().rstrip("%")) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--mfu {text}: two numbers LOW,HIGH are needed, like 0.35,0.45") from error
    if low > 1 or high > 1:
        low, high = low / 100, high / 100
    if not 0 < low <= high <= 1:
        raise InputError(f"--mfu {text}: 0 < LOW <= HIGH <= 1 is needed")
    return low, high
