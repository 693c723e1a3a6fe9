"""Thresholds on batches of stored values against the rules one page at a time; what drops a page first, and what makes it clean."""

import dataclasses
import random

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.quality.recipe import QualityRecipe
from data_pipeline.web.measures import Values
from data_pipeline.web.recipe import Thresholds, WebRecipe
from data_pipeline.web.rules import Rejection, first_rejection, rules_of, threshold_rules
from data_pipeline.web.tables import MEASURES, PLACE, PROBLEM
from data_pipeline.web.verdicts import judge_batch

COLUMNS = [*PLACE, *MEASURES, *PROBLEM]
SCHEMA = pa.schema(COLUMNS)


def row(values: Values | None, **others: object) -> dict[str, object]:
    empty = {name: "" if kind == pa.string() else None for name, kind in COLUMNS}
    measured = {} if values is None else dataclasses.asdict(values)
    return empty | {"language": "en", "language_distance": 10, "problem_value": 0.0, "problem_threshold": 0.0} | measured | others


def batch(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def random_values(chance: random.Random) -> Values:
    """Values on both sides of many thresholds."""
    drawn = {}
    for field in dataclasses.fields(Values):
        whole = field.type in (int, "int")
        drawn[field.name] = chance.choice([0, 0, 1, 3, 120, 600]) if whole else chance.choice([0.0, 0.05, 0.11, 0.25, 0.9, 5.0])
    return Values(**drawn | {"words": chance.choice([5, 60, 300, 300, 200_000]), "characters": 2000})


@pytest.mark.parametrize("recipe", [WebRecipe(), WebRecipe(c4_braces=False, rules=Thresholds(max_top_2gram=1.0, max_top_3gram=1.0))])
def test_a_batch_is_judged_as_its_pages_are(recipe: WebRecipe) -> None:
    chance = random.Random(5)
    pages = [random_values(chance) for _ in range(400)]
    # One that passes everything, and each of its values moved over each threshold in turn.
    good = Values(**{field.name: 0 for field in dataclasses.fields(Values)} | {"characters": 2000, "words": 300})
    for rule in threshold_rules(recipe.clean):
        if type(rule).__name__ == "Minimum" and rule.measure not in ("words",):
            good = dataclasses.replace(good, **{rule.measure: type(getattr(good, rule.measure))(rule.threshold + 1)})
    for rule in rules_of(recipe):
        step = -1 if type(rule).__name__ == "Minimum" else 1
        pages.append(dataclasses.replace(good, **{rule.measure: rule.threshold + step}))
    found = judge_batch(recipe, batch([row(values) for values in pages]))
    order = [rule for rule in rules_of(recipe) if rule.reason in ("link_density", "too_short")]
    seen = set()
    for place, values in enumerate(pages):
        expected = first_rejection([*order, *rules_of(recipe)], values)
        told = (
            Rejection(found.reason[place], found.measure[place], found.value[place], found.threshold[place])
            if found.reason[place]
            else None
        )
        assert told == expected, place
        seen.add(found.reason[place])
        if expected is None:
            assert found.clean[place] == (first_rejection(threshold_rules(recipe.clean), values) is None)
    assert {rule.reason for rule in rules_of(recipe)} <= seen


def test_problems_come_first_then_text_then_language() -> None:
    good = dataclasses.replace(random_values(random.Random(1)), link_density=0.0, words=300)
    pages = [
        row(None, problem="http_status", problem_measure="http_status", problem_value=404.0, problem_threshold=299.0, language=""),
        row(dataclasses.replace(good, characters=0, words=0), language=""),
        row(dataclasses.replace(good, words=3), language="de"),
        row(good, language="de", language_distance=77),
        row(good, language_distance=5000),
        row(dataclasses.replace(good, link_density=0.95, words=0)),
        row(good, robots="noarchive, noindex", language="de"),
    ]
    found = judge_batch(WebRecipe(), batch(pages))
    assert found.reason.tolist() == ["http_status", "no_text", "too_short", "language", "language", "link_density", "noindex"]
    assert (found.value[0], found.threshold[0]) == (404.0, 299.0)
    assert (found.measure[3], found.value[3]) == ("de", 77.0)
    assert found.threshold[4] == 1000.0
    assert not found.clean.any()


def test_pages_below_the_score_and_of_unwanted_kinds_are_dropped_after_the_rules() -> None:
    scores = [(2.4, "concept"), (2.5, "concept"), (4.9, "ephemeral"), (0.0, "ephemeral"), (None, "")]
    rows = [row(None, quality=score, quality_kind=kind, quality_kind_probability=0.7) for score, kind in scores]
    rows.append(row(None, quality=0.0, quality_kind="ephemeral", language="de"))
    found = judge_batch(WebRecipe(quality=QualityRecipe(model="m", min_score=2.5, drop_kinds=("ephemeral",))), batch(rows))
    assert found.reason.tolist() == ["low_quality", "", "unwanted_kind", "low_quality", "", "language"]
    assert (found.value[0], found.threshold[0], found.measure[0]) == (2.4, 2.5, "quality")
    assert (found.value[2], found.measure[2]) == (0.7, "ephemeral")
    only_recorded = judge_batch(WebRecipe(quality=QualityRecipe(model="m")), batch(rows))
    assert only_recorded.reason.tolist() == ["", "", "", "", "", "language"]


def test_what_was_not_measured_rejects_nothing() -> None:
    found = judge_batch(WebRecipe(languages=()), batch([row(None)]))
    assert found.reason.tolist() == [""]


def test_a_page_is_dropped_once() -> None:
    found = judge_batch(WebRecipe(languages=()), batch([row(None), row(None)]))
    found.drop(np.array([1]), "first", "measure", np.array([2.0]), 3.0)
    found.drop(np.array([0, 1]), "second", "measure", np.array([4.0, 5.0]), 6.0)
    assert found.reason.tolist() == ["second", "first"]
    assert found.value.tolist() == [4.0, 2.0]
