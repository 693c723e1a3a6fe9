"""The verb `phial eval`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(
    model: Annotated[str, typer.Argument(help="A Hugging Face Phi3 folder, a checkpoint, or an exported package.")],
    data: Annotated[Path, typer.Option(help="Folder with the benchmark files, for example RUN/synthetic/held_out.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json and items.jsonl; a killed run goes on here.")],
    tasks: Annotated[str, typer.Option(help="Comma-separated: mmlu, exercises, bits_per_byte, preferences.")] = "mmlu",
    shots: Annotated[int, typer.Option(help="Solved questions before each four-way question, 0 to 5.")] = 0,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Chat prompts; by default where the model has a chat template.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="Wording of four-way questions: lm-eval or hendrycks.")] = "lm-eval",
    scoring: Annotated[
        str, typer.Option(help="The score of four-way questions: letter, text or text_per_byte; all are printed.")
    ] = "letter",
    limit: Annotated[int | None, typer.Option(help="Score so many items of each task, drawn with --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the items of --limit.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest written answer, in tokens.")] = 32,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of tokenizer.json where the model has none.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="Folder of clean and dirty items that decontamination wrote; their scores are told apart.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Score a model on benchmarks: letter and option-text accuracy by family, exact answers, bits per byte, preferences."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from eval.runner import evaluate as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bars:
        shown: dict[str, Any] = {}

        def progress(task: str, done: int, items: int) -> None:
            if task not in shown:
                shown[task] = bars.add_task(task, total=items)
            bars.update(shown[task], completed=done)

        names = [name.strip() for name in tasks.split(",") if name.strip()]
        results = run(
            model,
            names,
            data,
            out,
            shots=shots,
            chat="auto" if chat is None else chat,
            limit=limit,
            seed=seed,
            protocol=protocol,
            scoring=scoring,
            max_new_tokens=max_new_tokens,
            tokenizer=tokenizer,
            split=split,
            progress=progress,
        )
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        print_results(results, Console(), out)


def print_results(results: dict[str, Any], console: "Console", out: Path) -> None:
    """Scores, families and protocols as tables."""
    from rich.table import Column, Table

    identity = results["model"]
    console.print(f"[bold]{identity['path']}[/bold] ({identity['kind']}, context {identity['context']})")
    table = Table(Column("task", no_wrap=True), "scoring", "score", "±", "items", "chance", "protocol")
    for name, task in results["tasks"].items():
        for scoring, score in scorings(task).items():
            chance = "" if name in ("bits_per_byte", "exercises") else f"{task['chance']:.2f}"
            table.add_row(
                name,
                scoring,
                f"{score['score']:.4f}",
                f"{score['standard_error']:.4f}",
                str(score.get("items", task["items"])),
                chance,
                task["protocol"]["hash"],
            )
    console.print(table)
    for name, task in results["tasks"].items():
        if task["families"]:
            console.print(family_table(name, task, Table))
        cut = {what: count for what, count in task.get("truncations", {}).items() if count}
        if cut:
            console.print(f"{name}: " + ", ".join(f"{what.replace('_', ' ')}: {count}" for what, count in cut.items()))
    for name, task in results["tasks"].items():
        for line in contamination_lines(name, task):
            console.print(line)
    console.print(f"results.json and items.jsonl are in {out}")


def contamination_lines(name: str, task: dict[str, Any]) -> list[str]:
    """The scores on clean and dirty items, where a split was given."""
    if "split" in task:
        return [f"{name}: {task['split']}"]
    parts = {part: task[part] for part in ("clean", "dirty", "unchecked") if part in task}
    told = [
        f"{part} {one['score']:.4f} ± {one['standard_error']:.4f} ({one['items']} items)" if one["items"] else f"{part} 0 items"
        for part, one in parts.items()
    ]
    return [f"{name}: " + ", ".join(told)] if told else []


def scorings(task: dict[str, Any]) -> dict[str, Any]:
    """Every scoring of a task with its score."""
    return task.get("scores") or {task["scoring"]: task}


def family_table(name: str, task: dict[str, Any], table_type: Any) -> Any:
    """One row per family; a score that is not two standard errors above chance is marked."""
    kinds = list(next(iter(task["families"].values())))
    table = table_type("family", *kinds, "items", title=f"{name} by family (~ not two standard errors above chance)", title_justify="left")
    for family, scores in task["families"].items():
        cells = []
        for kind in kinds:
            score, error = scores[kind]["score"], scores[kind]["standard_error"]
            near = task["chance"] > 0 and score - task["chance"] < 2 * error
            cells.append(f"{'~' if near else ''}{score:.3f} ± {error:.3f}")
        table.add_row(family, *cells, str(scores[kinds[0]]["items"]))
    return table
