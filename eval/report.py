"""report.html: everything a run made, on one page without external resources."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import atomic_write, read_json, read_json_lines
from eval import plots

TEMPLATE = Path(__file__).with_name("report.html")
CONVERSATIONS = 8


def write_report(run: str | Path, results: dict[str, Any]) -> Path:
    """Writes RUN/report.html from `results` (what RUN/results.json holds) and the run's artefacts, and returns its path.

    A part whose artefact is missing is named on the page as missing.
    """
    import jinja2

    folder = RunFolder.open(run)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"count": count, "size": size, "duration": duration, "percent": percent, "spaced": spaced}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(context(folder, results))
    path = folder.root / "report.html"
    with atomic_write(path, "w") as stream:
        stream.write(page)
    return path


def context(run: RunFolder, results: dict[str, Any]) -> dict[str, Any]:
    """What the template shows; None where a part is missing, with a line in `missing`."""
    missing: list[str] = []

    def part(what: str, read: Callable[[], Any]) -> Any:
        try:
            found = read()
        except InputError as error:
            missing.append(f"{what}: {' '.join(str(error).split())}")
            return None
        except (OSError, KeyError) as error:
            missing.append(f"{what}: not in this run ({error})")
            return None
        if not found:
            missing.append(f"{what}: not in this run")
            return None
        return found

    choice = part("scores", lambda: results["multiple_choice"])
    families = part("scores by family", lambda: results["families"])
    paired = part("paired differences", lambda: results["paired"])
    mixture = part("mixture", lambda: mixture_of(run))
    shown = {
        "results": results,
        "funnel": part("funnel", lambda: read_json(run.web / "funnel.json")),
        "mixture": mixture,
        "pretrain_plot": part("pretraining loss", lambda: plots.loss_curve("pretrain", metrics(run.pretrain / "metrics.jsonl"))),
        "sft_plot": part(
            "fine-tuning loss", lambda: plots.loss_curve("sft", metrics(run.sft / "metrics.jsonl"), "step", plots.MODEL_INKS["sft"])
        ),
        "dpo_plot": part("preference loss", lambda: plots.preference_curve("dpo", metrics(run.dpo / "metrics.jsonl"))),
        "choice": choice,
        "families": families,
        "family_names": sorted({name for scores in (families or {}).values() for name in scores}),
        "overall_plot": plots.overall(choice) if choice else None,
        "letter_plot": plots.by_family(families, "letter_") if families else None,
        "text_plot": plots.by_family(families, "text_") if families else None,
        "paired": paired,
        "paired_plot": plots.differences(paired) if paired else None,
        "conversations": part("sample conversations", lambda: conversations(run)),
        "protocols": part("protocols", lambda: protocols(run)),
        "benchmarks": benchmark_scores(run),
        "sizes": part("sizes and speeds", lambda: sizes(run, results)),
        "labels": plots.MODEL_LABELS,
        "recipe": run.recipe.read_text(encoding="utf-8") if run.recipe.is_file() else None,
    }
    for name in ("stages", "exact_answers", "bits_per_byte", "preference_accuracy", "quantization"):
        part(name.replace("_", " "), lambda name=name: results[name])
    return {**shown, "missing": missing}


def metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file that hold a loss."""
    return [row for row in read_json_lines(path) if isinstance(row.get("loss"), int | float)]


def mixture_of(run: RunFolder) -> dict[str, Any]:
    """Tokens and epochs per phase and source, from the run's recipe and token shards."""
    from data_pipeline.recipe import Recipe
    from data_pipeline.tokens.mixture import Mixture, PhaseRecipe
    from data_pipeline.tokens.shards import TokenShards

    tables = Recipe.load(run.recipe).tables
    pretrain = tables["pretrain"]
    phases = [PhaseRecipe(**phase) for phase in pretrain["phases"]]
    shards = {source: TokenShards.open(run.tokens / source) for source in {name for phase in phases for name in phase.weights}}
    return Mixture(phases, shards, pretrain["context"], pretrain["rows_per_step"], tables.get("run", {}).get("seed", 0)).report()


def conversations(run: RunFolder) -> list[dict[str, Any]]:
    """Held-out questions with what the smallest model answered: the first of each family, right or wrong."""
    for model in ("int4", "dpo", "sft"):
        path = run.eval / model / "items.jsonl"
        if path.is_file():
            firsts: dict[str, dict[str, Any]] = {}
            for row in read_json_lines(path):
                if row["task"] == "exercises":
                    firsts.setdefault(row["family"], {**row, "model": model})
            return list(firsts.values())[:CONVERSATIONS]
    return []


def protocols(run: RunFolder) -> list[dict[str, Any]]:
    """Every protocol that a score of this run was measured under, with the models and tasks it was used for."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(run.eval.glob("*/results.json")):
        for task, entry in read_json(path)["tasks"].items():
            protocol = entry["protocol"]
            entry = found.setdefault(f"{task} {protocol['hash']}", {"task": task, "hash": protocol["hash"], "models": [], "text": ""})
            entry["models"].append(path.parent.name)
            entry["text"] = json.dumps(protocol, indent=1, ensure_ascii=False)
    return list(found.values())


def benchmark_scores(run: RunFolder) -> dict[str, Any]:
    """Scores on the user's own benchmark files, by model; empty where there were none."""
    found = {}
    for path in sorted(run.eval.glob("*-benchmarks/results.json")):
        task = read_json(path)["tasks"].get("mmlu")
        if task:
            found[path.parent.name.removesuffix("-benchmarks")] = task
    return found


def sizes(run: RunFolder, results: dict[str, Any]) -> list[tuple[str, str]]:
    """What the run's models weigh and how fast they were made and run."""
    lines: list[tuple[str, str]] = []
    weights = sorted((run.dpo / "model").glob("*.safetensors"))
    if weights:
        lines.append(("trained weights", size(sum(path.stat().st_size for path in weights))))
    package = [path for path in run.package.glob("*") if path.is_file()]
    if package:
        lines.append(("4-bit package, everything in it", size(sum(path.stat().st_size for path in package))))
    trained = read_json(run.pretrain / "result.json") if (run.pretrain / "result.json").is_file() else {}
    for key, label in (("parameters", "parameters"), ("tokens", "pretraining tokens"), ("tokens_per_s", "pretraining tokens per second")):
        if key in trained:
            lines.append((label, count(trained[key])))
    web = read_json(run.web / "speed.json") if (run.web / "speed.json").is_file() else {}
    if "pages_per_second" in web:
        lines.append(("pages filtered per second", count(web["pages_per_second"])))
    bench = results.get("bench") or {}
    for key, label in (("prompt_tokens_per_s", "4-bit: prompt tokens per second"), ("decode_tokens_per_s", "4-bit: new tokens per second")):
        if key in bench:
            lines.append((label, count(bench[key])))
    if "load_s" in bench:
        lines.append(("4-bit: loaded in", f"{bench['load_s']:.2f} s"))
    return lines


def count(value: float) -> str:
    """1,234,567; one decimal below 100 where it has one."""
    return f"{value:,.1f}" if isinstance(value, float) and abs(value) < 100 and value != int(value) else f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds, with minutes from 100 on."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds // 60)} min {round(seconds % 60):02d} s"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def spaced(name: str) -> str:
    return str(name).replace("_", " ")
