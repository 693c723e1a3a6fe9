"""What `phial data decontaminate` prints."""

import json
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.web.decontamination.recipe import Decontamination


def decontaminate_verb(files: list[str], benchmarks: list[str], out: str, overrides: list[str], as_json: bool) -> None:
    """Decontaminates and prints what was found."""
    from data_pipeline.web.decontamination.files import decontaminate_files
    from data_pipeline.web.verbs import progress_bar

    settings = settings_of(benchmarks, overrides)
    with progress_bar() as bar:
        task = bar.add_task("matching", total=None)
        record = decontaminate_files(files, settings, Path(out), lambda texts: bar.update(task, completed=texts))
    print(json.dumps(record, ensure_ascii=False) if as_json else "\n".join(lines(record, out)))


def settings_of(benchmarks: list[str], overrides: list[str]) -> Decontamination:
    """The settings, by `web.decontamination.KEY=VALUE`."""
    recipe = Recipe({}, "--set")
    for override in overrides:
        if not override.strip().startswith("web.decontamination."):
            raise InputError(f"--set {override}: web.decontamination.KEY=VALUE is needed here")
        recipe.override(override)
    recipe.tables = {"web": recipe.tables.get("web", {}).get("decontamination", {})}
    recipe.tables["web"]["benchmarks"] = benchmarks
    return recipe.section("web", Decontamination)


def lines(record: dict[str, Any], out: str) -> list[str]:
    """A line per benchmark with something found, and the sums."""
    told = []
    for task, one in record["benchmarks"].items():
        if one["dirty"]:
            told.append(f"{task}: {one['dirty']:,} of {one['items']:,} items ({one['share']:.1%}) in {one['documents']:,} documents")
    free = sum(not one["dirty"] for one in record["benchmarks"].values())
    unchecked = sum(one["unchecked"] for one in record["benchmarks"].values())
    told.append(f"{out}: {record['contaminated_documents']:,} of {record['documents']:,} documents hold benchmark items")
    told.append(f"no item found of {free:,} benchmarks; {record['near_documents']:,} documents come near one (hits.jsonl)")
    if unchecked:
        told.append(f"{unchecked:,} items are too short, or too much like their benchmark's others, to be searched for")
    return told
