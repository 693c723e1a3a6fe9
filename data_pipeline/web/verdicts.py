"""Thresholds applied to stored values, a whole batch of pages at a time: which rule drops each page first, and which pages are clean."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import Maximum, Minimum, Rule, rules_of, threshold_rules

PROBLEM = ("problem", "problem_measure", "problem_value", "problem_threshold")


@dataclass(frozen=True)
class Verdicts:
    """Per page of a batch: why it is dropped (an empty reason where it is not), and whether it passes the stricter rules too."""

    reason: np.ndarray  # str objects
    measure: np.ndarray  # str objects
    value: np.ndarray  # float64
    threshold: np.ndarray  # float64
    clean: np.ndarray  # bool

    @property
    def passed(self) -> np.ndarray:
        return self.reason == ""

    def drop(self, rows: np.ndarray, reason: str, measure: Any, value: Any, threshold: float) -> None:
        """Drops those of `rows` (numbers in the batch) that nothing has dropped before."""
        fresh = self.reason[rows] == ""
        chosen = rows[fresh]
        self.reason[chosen] = reason
        self.measure[chosen] = measure[fresh] if isinstance(measure, np.ndarray) else measure
        self.value[chosen] = value[fresh] if isinstance(value, np.ndarray) else value
        self.threshold[chosen] = threshold
        self.clean[chosen] = False


def needed_columns(recipe: WebRecipe) -> list[str]:
    """The stored columns that `judge_batch` reads."""
    measures = {rule.measure for rule in [*rules_of(recipe), *threshold_rules(recipe.clean)]}
    return [
        *PROBLEM,
        "robots",
        "language",
        "second_language",
        "language_distance",
        "quality",
        "quality_kind",
        "quality_kind_probability",
        *sorted(measures | {"characters", "words", "link_density"}),
    ]


def judge_batch(recipe: WebRecipe, batch: pa.RecordBatch) -> Verdicts:
    """The verdict of each page on its own; the first rule that rejects gives the reason."""
    size = batch.num_rows
    verdicts = Verdicts(np.full(size, "", object), np.full(size, "", object), np.zeros(size), np.zeros(size), np.ones(size, bool))
    drop_problems(verdicts, batch)
    if recipe.drop_noindex:
        rules = objects(batch, "robots").astype(str)
        verdicts.drop(np.flatnonzero(np.char.find(rules, "noindex") >= 0), "noindex", "robots", 1.0, 0.0)
    values = {
        name: column(batch, name) for name in batch.schema.names if pa.types.is_integer(kind_of(batch, name)) or is_float(batch, name)
    }
    first, *rest = (Maximum("link_density", "link_density", recipe.rules.max_link_density), *textual_rules(recipe))
    apply(verdicts, first, values)
    for rule in rest:
        apply(verdicts, rule, values)
    drop_languages(verdicts, batch, recipe)
    for rule in rules_of(recipe):
        apply(verdicts, rule, values)
    drop_kinds(verdicts, batch, recipe.quality.drop_kinds)
    for rule in threshold_rules(recipe.clean):
        verdicts.clean[rejected(rule, values)] = False
    return verdicts


def textual_rules(recipe: WebRecipe) -> list[Rule]:
    """No text, or too little to tell its language."""
    return [Minimum("no_text", "characters", 1), Minimum("too_short", "words", recipe.rules.min_words)]


def apply(verdicts: Verdicts, rule: Rule, values: dict[str, np.ndarray]) -> None:
    rows = np.flatnonzero(rejected(rule, values))
    verdicts.drop(rows, rule.reason, rule.measure, values[rule.measure][rows], float(rule.threshold))


def rejected(rule: Rule, values: dict[str, np.ndarray]) -> np.ndarray:
    """Which pages a rule rejects: bool [pages]. A value that was not measured is NaN and rejects nothing."""
    found = values[rule.measure]
    return found < rule.threshold if isinstance(rule, Minimum) else found > rule.threshold


def drop_problems(verdicts: Verdicts, batch: pa.RecordBatch) -> None:
    """Pages of which nothing was measured."""
    reasons = objects(batch, "problem")
    rows = np.flatnonzero(reasons != "")
    if len(rows):
        measures, values, thresholds = objects(batch, "problem_measure"), column(batch, "problem_value"), column(batch, "problem_threshold")
        for row in rows.tolist():
            verdicts.drop(np.array([row]), reasons[row], measures[row], values[row], thresholds[row])


def drop_languages(verdicts: Verdicts, batch: pa.RecordBatch, recipe: WebRecipe) -> None:
    """Pages in a language that is not kept, or far from every language's profile; the measure is the language's code.

    Where a second opinion was asked, it has decided and the distance says nothing.
    """
    if not recipe.languages:
        return
    codes, distances = objects(batch, "language"), column(batch, "language_distance")
    far = (distances > recipe.max_language_distance) & (objects(batch, "second_language") == "")
    rows = np.flatnonzero(~np.isin(codes.astype(str), recipe.languages) | far)
    verdicts.drop(rows, "language", codes[rows], distances[rows], float(recipe.max_language_distance))


def drop_kinds(verdicts: Verdicts, batch: pa.RecordBatch, unwanted: tuple[str, ...]) -> None:
    """Pages whose likeliest kind of knowledge is not kept: the measure is the kind, the value its probability."""
    if unwanted:
        kinds = objects(batch, "quality_kind")
        rows = np.flatnonzero(np.isin(kinds.astype(str), unwanted))
        verdicts.drop(rows, "unwanted_kind", kinds[rows], column(batch, "quality_kind_probability")[rows], 0.0)


def kind_of(batch: pa.RecordBatch, name: str) -> pa.DataType:
    return batch.schema.field(name).type


def is_float(batch: pa.RecordBatch, name: str) -> bool:
    return pa.types.is_floating(kind_of(batch, name))


def column(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A numeric column as float64 [pages], NaN where nothing was measured."""
    return batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def objects(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of strings as objects [pages], "" where there is none."""
    return pc.fill_null(batch.column(name), "").to_numpy(zero_copy_only=False)
