"""The [eval] section."""

from typing import Literal

from pydantic import Field

from data_pipeline.recipe import Section


class EvalRecipe(Section):
    """[eval]: how the demo's models are scored."""

    shots: int = Field(0, ge=0, le=5, description="solved questions before each held-out four-way question")
    scoring: Literal["letter", "text", "text_per_byte"] = Field(
        "letter", description="which scoring of four-way questions is the score; all are printed"
    )
    benchmark_shots: int = Field(
        5, ge=0, le=5, description="the same for real MMLU items; those that do not fit the context are dropped and counted"
    )
    benchmark_items: int = Field(200, ge=1, description="real MMLU items drawn with seed 0; all of them with --full")
