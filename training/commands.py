"""The verb of this room: pretrain."""

import json
import sys
from pathlib import Path

import typer

from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder


def pretrain(
    recipe: str = typer.Argument(..., help="A recipe: a TOML file, or the name of one in recipes/."),
    out: Path | None = typer.Option(None, help="The run folder; by default [run] folder."),
    ranks: int = typer.Option(1, min=1, help="Processes on this machine: 1 is plain torch, more use DeepSpeed ZeRO."),
    set_: list[str] = typer.Option([], "--set", help="section.key=value, over the recipe; may be given several times."),
    edit_mixture: bool = typer.Option(False, help="Go on from the last checkpoint with the recipe's phases where they are other ones."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Train a decoder from token shards; run again after an interruption to go on from the last checkpoint."""
    from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe

    settings = Recipe.load(recipe, overrides=set_)
    run_settings = settings.section("run", RunRecipe)
    model, section = settings.section("model", ModelRecipe), settings.section("pretrain", PretrainRecipe)
    layout = settings.section("layout", LayoutRecipe)
    run = RunFolder.open(out or run_settings.folder)

    from training.trainer import pretrain as train

    try:
        result = train(
            section,
            model,
            tokens=run.tokens,
            tokenizer=run.tokenizer,
            out=run.pretrain,
            layout=layout,
            seed=run_settings.seed,
            ranks=ranks,
            stream=sys.stderr,
            edit_mixture=edit_mixture,
            accepted=lambda: settings.save(run.recipe),  # a refused recipe must not stand in the run that others made
        )
    except KeyboardInterrupt:
        print("phial: pretrain was interrupted; run the same line again to go on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"pretrain: {result['tokens']:,} tokens in {result['seconds']:,.0f} s ({result['tokens_per_s']:,.0f} tokens/s), "
            f"last loss {result['loss']:.3f}, peak memory {result['peak_rss_bytes'] / 2**30:.2f} GiB -> {result['model']}"
        )
