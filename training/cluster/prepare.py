"""For batch systems: `python -m training.cluster.prepare RECIPE --ranks N [--set ...] [--out DIR] [--edit-mixture]` checks a run and prints
where its job file is, which every rank reads."""

import argparse
import sys
from pathlib import Path

from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import write_json
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe


def prepare(recipe: str, overrides: list[str], out: Path | None, ranks: int, edit_mixture: bool = False) -> Path:
    """The job file of a run that could begin or go on."""
    from training.job import Job, make_plan
    from training.resume import find_start, open_store

    settings = Recipe.load(recipe, overrides=overrides)
    run_settings = settings.section("run", RunRecipe)
    run = RunFolder.open(out or run_settings.folder)
    job = Job(
        recipe=settings.section("pretrain", PretrainRecipe),
        model=settings.section("model", ModelRecipe),
        layout=settings.section("layout", LayoutRecipe),
        seed=run_settings.seed,
        tokens=run.tokens.resolve(),
        tokenizer=run.tokenizer.resolve(),
        out=run.pretrain.resolve(),
        edit_mixture=edit_mixture,
    )
    plan = make_plan(job, ranks)
    find_start(job, plan, open_store(job, plan))
    path = job.out / "launch" / "job.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("error.json").unlink(missing_ok=True)
    write_json(path, job.to_json())
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--edit-mixture", action="store_true")
    parser.add_argument("--ranks", type=int, required=True)
    given = parser.parse_args()
    try:
        sys.stdout.write(f"{prepare(given.recipe, given.overrides, given.out, given.ranks, given.edit_mixture)}\n")
    except Exception as error:
        if getattr(error, "exit_code", None) != 2:
            raise
        sys.stderr.write(f"phial: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None
