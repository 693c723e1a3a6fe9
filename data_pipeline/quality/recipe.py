"""Settings: what the build takes from a quality model, and how one is trained."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_pipeline.quality.rubric import KINDS
from data_pipeline.recipe import Section


class QualityRecipe(Section):
    """[web.quality]: which pages the build keeps by a quality model; without one nothing is scored."""

    model: str = Field(default="", description="the folder that `phial data quality train` has written; empty for none")
    min_score: float | None = Field(default=None, ge=0, le=5, description="pages below are dropped; without it scores are only recorded")
    drop_kinds: tuple[str, ...] = Field(default=(), description=f"kinds of knowledge that are dropped, of {', '.join(KINDS)}")

    @field_validator("drop_kinds")
    @classmethod
    def check_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        strangers = [kind for kind in kinds if kind not in KINDS]
        if strangers:
            raise ValueError(f"no kind {strangers[0]!r}; there is {', '.join(KINDS)}")
        return kinds

    @model_validator(mode="after")
    def check_model(self) -> "QualityRecipe":
        if not self.model and (self.min_score is not None or self.drop_kinds):
            raise ValueError("min_score and drop_kinds need a model, and model is empty")
        return self

    def fingerprint(self) -> str:
        """The SHA-256 of the model's manifest, which holds the hashes of its other files; "" without a model."""
        from data_pipeline.quality.model import fingerprint_of

        return fingerprint_of(self.model) if self.model else ""


class TrainingSettings(Section):
    """How a quality model is trained."""

    bits: int = Field(default=20, ge=18, le=22, description="2**bits buckets")
    word_grams: int = Field(default=2, ge=1, le=4, description="runs of up to so many words")
    character_grams: int = Field(default=0, ge=0, le=8, description="runs of so many bytes across words; 0 for none")
    min_documents: int = Field(default=2, ge=1, le=1000, description="a bucket in fewer training documents gets no weight")
    threshold: int = Field(default=3, ge=1, le=5, description="the score from which a document counts as good")
    validation_share: float = Field(default=0.15, gt=0, le=0.4, description="share of sites that settings and calibration are chosen on")
    test_share: float = Field(default=0.15, gt=0, le=0.4, description="share of sites that only the metrics see")
    penalties: tuple[float, ...] = Field(default=(1e-3, 1e-4, 1e-5, 1e-6), min_length=1, description="on the squared norm, to choose from")
    max_iterations: int = Field(default=200, ge=1, le=10_000, description="of L-BFGS, for each penalty")
    tolerance: float = Field(default=1e-5, gt=0, le=0.1, description="of the largest slope, at which L-BFGS ends")
    calibration: Literal["auto", "isotonic", "platt"] = Field(default="auto", description="auto: isotonic from 1,000 documents on")
    precision: Literal["float16", "float32"] = Field(default="float16", description="of the weights on disk")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the division by site")

    @field_validator("penalties")
    @classmethod
    def check_penalties(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if not all(1e-12 <= one <= 1e3 for one in penalties):
            raise ValueError("each penalty must lie between 1e-12 and 1e3")
        return tuple(sorted(set(penalties), reverse=True))
