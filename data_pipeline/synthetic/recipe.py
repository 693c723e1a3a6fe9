"""The [synthetic] section."""

from pydantic import Field

from data_pipeline.recipe import Section


class SyntheticRecipe(Section):
    """[synthetic]: how much of each kind of text is generated. Counts are per skill family."""

    families: list[str] = Field(default=[], description="skill families; empty means all")
    lessons: int = Field(default=150, ge=0, description="short explanations with an example, for several audiences")
    worked_examples: int = Field(default=500, ge=0, description="question, reason, answer")
    exercise_sheets: int = Field(default=1500, ge=0, description="one to four four-way questions with their letters")
    short_answers: int = Field(default=500, ge=0, description="sheets of questions with written answers")
    sft_rows: int = Field(default=1000, ge=1, description="chat rows for supervised fine-tuning")
    dpo_rows: int = Field(default=300, ge=1, description="preference pairs")
    held_out_items: int = Field(default=150, ge=10, description="four-way questions kept for evaluation")
    held_out_exercises: int = Field(default=30, ge=1, description="written-answer questions kept for evaluation")
    held_out_preferences: int = Field(default=40, ge=1, description="preference pairs kept for evaluation")
    held_out_share: float = Field(default=0.1, gt=0, lt=0.5, description="share of the operands that training never sees")
