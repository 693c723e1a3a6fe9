"""A plan in the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "total")


def show(plan: dict[str, Any], console: Console) -> None:
    """What is exact, then what is modelled."""
    model, run, machine = plan["model"], plan["run"], plan["machine"]
    per, unit = decimal_unit(model["flops_per_token_full"])
    console.print(
        f"{model['parameters']:,} parameters; {model['flops_per_token_causal'] / per:.2f} {unit}FLOP per token at {model['context']:,} "
        f"tokens ({model['flops_per_token_full'] / per:.2f} with all pairs); {run['tokens']:,} tokens in {run['steps']:,} steps of "
        f"{run['tokens_per_step']:,}"
    )
    console.print(
        f"{machine['nodes']} x {machine['gpus_per_node']} {machine['name']}, ${machine['price_per_hour']:g} per GPU and hour (assumed)"
    )
    asked = plan["asked"]
    if "refused" in asked:
        console.print(f"The recipe's layout ({named(asked['layout'])}) cannot be: {asked['refused']}", style="bold")
    else:
        console.print(f"The recipe's layout: {named(asked['layout'])}", style="bold")
        console.print(memory_table([asked]))
        console.print(traffic_table(asked))
        console.print(speed_line(asked))
    if plan["best"]:
        console.print(f"Best of the layouts that can be (speeds modelled at {plan['mfu'][0]:.0%} to {plan['mfu'][1]:.0%} of the peak):")
        console.print(memory_table(plan["best"], speeds=True))
    for one in plan["refused"]:
        least = "; the least of them" if one["least"] else ""
        console.print(f"cannot be ({one['layouts']} layouts{least}): {one['reason']}", style="dim")
    for text in plan["uneven_heads"].values():
        console.print(f"uneven: {text}", style="dim")


def named(layout: dict[str, Any]) -> str:
    """A layout in a few words."""
    parts = [f"ZeRO-{layout['zero_stage']}", f"data {layout['data']}"]
    if layout["tensor"] > 1:
        parts.append(f"tensor {layout['tensor']}" + (" with sequence" if layout["sequence"] else ""))
    if layout["context"] > 1:
        parts.append(f"context {layout['context']} ({layout['context_way']})")
    again = "" if layout["recompute"] == "none" else f", {layout['recompute']} recomputation"
    return f"{', '.join(parts)}, {layout['micro_rows']} rows at a time{again}"


def memory_table(entries: list[dict[str, Any]], speeds: bool = False) -> Table:
    per, unit = binary_unit(max(one["memory"]["total"] for one in entries))
    table = Table(title=f"{unit} per GPU", title_justify="left", box=None)
    table.add_column("layout")
    for kind in KINDS:
        table.add_column(kind, justify="right")
    if speeds:
        for title in ("tokens/s", "days", "cost, $"):
            table.add_column(title, justify="right")
    for one in entries:
        cells = [f"{one['memory'][kind] / per:.1f}" for kind in KINDS]
        if speeds:
            cells += [span(one["tokens_per_s"], ",.0f"), span(one["days"], ",.1f"), span(one["cost"], ",.0f")]
        table.add_row(named(one["layout"]), *cells)
    return table


def traffic_table(entry: dict[str, Any]) -> Table:
    table = Table(title="sent per step and GPU", title_justify="left", box=None)
    per, unit = decimal_unit(max((one["bytes"] for one in entry["traffic"]), default=0))
    for title in ("collective", "axis", "calls", f"{unit}B"):
        table.add_column(title, justify="left" if title in ("collective", "axis") else "right")
    for one in entry["traffic"]:
        table.add_row(
            one["name"], {"same": "data x context"}.get(one["axis"], one["axis"]), f"{one['calls']:,}", f"{one['bytes'] / per:.3f}"
        )
    return table


def speed_line(entry: dict[str, Any]) -> str:
    return (
        f"modelled: {span(entry['tokens_per_s'], ',.0f')} tokens/s ({span(entry['tokens_per_s_per_gpu'], ',.0f')} per GPU, "
        f"{span([100 * one for one in entry['mfu']], '.0f')} % of the peak), step {span(entry['step_s'], '.2f')} s, "
        f"{span(entry['days'], ',.1f')} days, ${span(entry['cost'], ',.0f')}"
    )


def binary_unit(most: float) -> tuple[int, str]:
    """Bytes of the unit in which the largest number reads well, and its name."""
    return next(((size, name) for size, name in ((2**30, "GiB"), (2**20, "MiB")) if most >= size), (2**10, "KiB"))


def decimal_unit(most: float) -> tuple[float, str]:
    """The same in powers of ten, and the prefix."""
    return next(((size, name) for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if most >= size), (1.0, ""))


def span(pair: list[float], form: str) -> str:
    """An interval, the smaller number first."""
    low, high = sorted(pair)
    return f"{low:{form}} to {high:{form}}"
