"""Keep or drop: each rule compares one measured value with one threshold and answers why it rejects."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.web.measures import Values
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.thresholds import Thresholds


@dataclass(frozen=True)
class Minimum:
    """Rejects below a threshold."""

    reason: str
    measure: str
    threshold: float

    def reject(self, values: Values) -> Rejection | None:
        value = getattr(values, self.measure)
        return Rejection(self.reason, self.measure, float(value), float(self.threshold)) if value < self.threshold else None


@dataclass(frozen=True)
class Maximum:
    """Rejects above a threshold."""

    reason: str
    measure: str
    threshold: float

    def reject(self, values: Values) -> Rejection | None:
        value = getattr(values, self.measure)
        return Rejection(self.reason, self.measure, float(value), float(self.threshold)) if value > self.threshold else None


Rule = Minimum | Maximum

# reason, measured value, which side, the setting. In the order in which they are asked: the first that rejects gives the reason.
TABLE = (
    ("link_density", "link_density", Maximum, "max_link_density"),
    ("too_short", "words", Minimum, "min_words"),
    ("too_long", "words", Maximum, "max_words"),
    ("symbols", "symbol_ratio", Maximum, "max_symbol_ratio"),
    ("repetition", "top_2gram", Maximum, "max_top_2gram"),
    ("repetition", "top_3gram", Maximum, "max_top_3gram"),
    ("repetition", "top_4gram", Maximum, "max_top_4gram"),
    ("repetition", "duplicate_lines", Maximum, "max_duplicate_lines"),
    ("repetition", "duplicate_line_characters", Maximum, "max_duplicate_line_characters"),
    ("repetition", "duplicate_paragraphs", Maximum, "max_duplicate_paragraphs"),
    ("repetition", "duplicate_paragraph_characters", Maximum, "max_duplicate_paragraph_characters"),
    ("repetition", "duplicate_5grams", Maximum, "max_duplicate_5grams"),
    ("repetition", "duplicate_6grams", Maximum, "max_duplicate_6grams"),
    ("repetition", "duplicate_7grams", Maximum, "max_duplicate_7grams"),
    ("repetition", "duplicate_8grams", Maximum, "max_duplicate_8grams"),
    ("repetition", "duplicate_9grams", Maximum, "max_duplicate_9grams"),
    ("repetition", "duplicate_10grams", Maximum, "max_duplicate_10grams"),
    ("word_length", "mean_word_length", Minimum, "min_mean_word_length"),
    ("word_length", "mean_word_length", Maximum, "max_mean_word_length"),
    ("not_words", "alphabetic_words", Minimum, "min_alphabetic_words"),
    ("stop_words", "stop_words", Minimum, "min_stop_words"),
    ("lists", "bullet_lines", Maximum, "max_bullet_lines"),
    ("teasers", "ellipsis_lines", Maximum, "max_ellipsis_lines"),
    ("lists", "line_ends", Minimum, "min_line_ends"),
    ("lists", "short_lines", Maximum, "max_short_lines"),
    ("repetition", "repeated_line_characters", Maximum, "max_repeated_line_characters"),
    ("lists", "newline_ratio", Maximum, "max_newline_ratio"),
    ("few_sentences", "sentences", Minimum, "min_sentences"),
)


def rules_of(recipe: WebRecipe) -> list[Rule]:
    """The rules that decide what is kept: those of the text, then the quality model's."""
    rules = threshold_rules(recipe.rules)
    if recipe.c4_lorem_ipsum:
        rules.append(Maximum("lorem_ipsum", "lorem_ipsum", 0))
    if recipe.c4_braces:
        rules.append(Maximum("braces", "braces", 0))
    if recipe.quality.min_score is not None:
        rules.append(Minimum("low_quality", "quality", recipe.quality.min_score))
    return rules


def threshold_rules(thresholds: Thresholds) -> list[Rule]:
    """One rule per line of the table."""
    return [side(reason, measure, getattr(thresholds, setting)) for reason, measure, side, setting in TABLE]


def first_rejection(rules: Sequence[Rule], values: Values) -> Rejection | None:
    """The first rule that rejects, or None."""
    return next((found for rule in rules if (found := rule.reject(values)) is not None), None)
