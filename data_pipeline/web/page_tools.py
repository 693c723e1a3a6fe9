"""What a worker needs beside the page and loads once: address lists, the quality model, the index of benchmark items."""

from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.web.domains import registered_domain
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.url_rules import check_address

if TYPE_CHECKING:
    from data_pipeline.quality.model import QualityModel, Score
    from data_pipeline.web.decontamination.index import BenchmarkIndex


class PageTools:
    """The loaded files of a recipe."""

    def __init__(self, recipe: WebRecipe) -> None:
        self.addresses = recipe.addresses
        self.model: QualityModel | None = None
        self.index: BenchmarkIndex | None = None
        if recipe.quality.model:
            from data_pipeline.quality import model

            self.model = model.QualityModel.load(recipe.quality.model)
        if recipe.decontamination.benchmarks:
            from data_pipeline.web.decontamination import index

            self.index = index.BenchmarkIndex.build(recipe.decontamination.benchmarks, recipe.decontamination)

    def domain(self, url: str) -> str:
        return registered_domain(url)

    def refused_address(self, url: str) -> Rejection | None:
        return check_address(self.addresses, url) if url else None

    def quality(self, text: str) -> "Score | None":
        """What the recipe's model says of a text; None without a model or without a text."""
        return self.model.score(text) if self.model is not None and text else None

    def hits(self, hashes: np.ndarray) -> bytes:
        from data_pipeline.web.contamination_step import stored

        return stored(self.index.match(hashes)) if self.index is not None else b""


# The recipe asked last, with its tools: a worker asks the same one for every page.
LOADED: list[tuple[WebRecipe, PageTools]] = []


def tools_of(recipe: WebRecipe) -> PageTools:
    """The tools of this process, loaded when a recipe is first asked for."""
    if not LOADED or LOADED[0][0] is not recipe:
        LOADED[:] = [(recipe, PageTools(recipe))]
    return LOADED[0][1]
