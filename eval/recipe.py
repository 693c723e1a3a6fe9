"""The [eval] section."""

from pydantic import Field

from data_pipeline.recipe import Section


class EvalRecipe(Section):
    """[eval]: how the demo's models are scored."""

    shots: int = Field(0, ge=0, le=5, description="solved questions before each held-out four-way question")
    benchmark_shots: int = Field(
        5, ge=0, le=5, description="the same for real MMLU items; those that do not fit the context are dropped and counted"
    )
    benchmark_items: int = Field(200, ge=1, description="real MMLU items drawn with seed 0; all of them with --full")
