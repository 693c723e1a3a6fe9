"""The plans of the three models on 8, 64 and 512 H200: `python -m benchmarks.plan`. Modelled but for counts and bytes, which are exact.

Writes benchmarks/results/plan.json, docs/images/plan-*.svg, and the tables of docs/plan.md between their markers: the plans, and what
benchmarks/results/gpu-trainer-*.json measured on one GPU.
"""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from data_pipeline.provenance import provenance
from data_pipeline.recipe import Recipe
from data_pipeline.storage import read_json, write_json
from training.plan.commands import plan_of
from training.plan.report import named
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("phi3-mini", "phi3-small", "phi3-medium")
NODES = (1, 8, 64)
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")
MARKS = {name: (f"<!-- {name} table: written by benchmarks/plan.py -->", f"<!-- end of the {name} table -->") for name in ("plan", "gpu")}


def plans() -> dict[str, dict[str, Any]]:
    """Every model on every number of nodes."""
    found: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        settings = Recipe.load(name)
        model, recipe = settings.section("model", ModelRecipe), settings.section("pretrain", PretrainRecipe)
        layout = settings.section("layout", LayoutRecipe)
        found[name] = {str(8 * nodes): plan_of(model, recipe, layout, nodes, 8, "h200") for nodes in NODES}
    return found


def span(pair: list[float], form: str) -> str:
    low, high = sorted(pair)
    return f"{low:{form}} to {high:{form}}"


def table(found: dict[str, dict[str, Any]]) -> str:
    """The best layout of each, in Markdown."""
    titles = ("model", "GPUs", "best layout", "GiB per GPU", "GB sent per step and GPU", "tokens/s", "days", "cost, $")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, by_size in found.items():
        for gpus, plan in by_size.items():
            best = plan["best"][0]
            sent = sum(one["bytes"] for one in best["traffic"]) / 1e9
            cells = [name, gpus, named(best["layout"]), f"{best['memory']['total'] / 2**30:.1f}", f"{sent:.1f}"]
            cells += [span(best["tokens_per_s"], ",.0f"), span(best["days"], ",.0f"), span(best["cost"], ",.0f")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Memory by kind, and speed and days over GPUs."""
    plt.rcParams |= {"svg.hashsalt": "phial", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    labels, bottoms = [], []
    for name, by_size in found.items():
        for gpus in by_size:
            labels.append(f"{name.removeprefix('phi3-')} {gpus}")
            bottoms.append(0.0)
    bests = [plan["best"][0]["memory"] for by_size in found.values() for plan in by_size.values()]
    for kind in KINDS:
        heights = [memory[kind] / 2**30 for memory in bests]
        left.bar(labels, heights, bottom=bottoms, label=kind)
        bottoms = [a + b for a, b in zip(bottoms, heights, strict=True)]
    left.axhline(141e9 / 2**30, color="grey", linestyle="--", linewidth=0.8)
    left.set_ylabel("GiB per GPU (H200: dashed)")
    left.tick_params(axis="x", rotation=60)
    left.legend(fontsize=7, ncols=2)
    for name, by_size in found.items():
        sizes = [int(gpus) for gpus in by_size]
        low, high = zip(*(sorted(plan["best"][0]["days"]) for plan in by_size.values()), strict=True)
        right.fill_between(sizes, low, high, alpha=0.3)
        right.plot(sizes, [(a * b) ** 0.5 for a, b in zip(low, high, strict=True)], marker="o", label=name)
    right.set(xscale="log", yscale="log", xlabel="H200 GPUs", ylabel="days for the recipe's tokens, modelled")
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs/images/plan.svg", metadata={"Date": None})


def measured_table() -> str:
    """What the trainer did on one GPU beside what was planned for it, in Markdown."""
    titles = ("rows", "layers", "recomputation", "rows at a time", "tokens/s", "MFU", "planned, GiB", "peak, GiB", "planned / peak")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for file in sorted((ROOT / "benchmarks/results").glob("gpu-trainer-*.json")):
        one = read_json(file)
        settings, planned, peak = one["settings"], one["planned_bytes"]["total"], one["peak_bytes"]
        documents = "one document" if settings["mean"] >= settings["context"] else f"packed, {settings['mean']} tokens a document"
        cells = [documents, "compiled" if settings["compile"] else "eager", settings["recompute"], str(one["micro_rows"])]
        cells += [f"{one['tokens_per_s_median']:,.0f}", f"{median(one['mfu_causal']):.1%}"]
        cells += [f"{planned / 2**30:.1f}", f"{peak / 2**30:.1f}", f"{planned / peak:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(text: str, name: str, content: str) -> str:
    begin, end = MARKS[name]
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def main() -> None:
    found = plans()
    draw(found)
    page = ROOT / "docs" / "plan.md"
    text = replaced(page.read_text(encoding="utf-8"), "plan", table(found))
    page.write_text(replaced(text, "gpu", measured_table()), encoding="utf-8")
    short = {name: {gpus: {"model": plan["model"], "best": plan["best"][:3]} for gpus, plan in by.items()} for name, by in found.items()}
    write_json(ROOT / "benchmarks/results/plan.json", {**provenance(), "kind": "modelled; counts and bytes exact", "plans": short})
    print(table(found))


if __name__ == "__main__":
    main()
