"""The [web] settings that a build was made with. The run's recipe.toml has others once another recipe was used in its folder."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.storage import read_json
from data_pipeline.web.recipe import WebRecipe


def settings_to_keep(recipe: WebRecipe) -> dict[str, Any]:
    """What funnel.json keeps: all settings but the number of processes, which changes no byte of a build."""
    return recipe.model_dump(mode="json", exclude_none=True, exclude={"workers"})


def settings_of(web: Path, recipe: Path) -> WebRecipe | None:
    """The build's settings: of its funnel.json, for older builds of the run's recipe.toml; None where there is neither.

    Raises InputError where they are of another version of this program.
    """
    try:
        told = read_json(web / "funnel.json").get("settings")
    except (InputError, OSError, AttributeError):  # none, damaged, no object: the ledger is enough, and the funnel is not needed
        told = None
    if isinstance(told, dict):
        return Recipe({"web": told}, str(web / "funnel.json")).section("web", WebRecipe)
    return Recipe.load(recipe).section("web", WebRecipe) if recipe.exists() else None
