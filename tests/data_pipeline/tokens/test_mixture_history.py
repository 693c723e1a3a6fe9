"""Edits of a mixture under way: rows before stay, sources go on where they stood, nothing is read twice or passed over."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture import Mixture, PhaseRecipe, Start, draw, drawn
from data_pipeline.tokens.mixture_history import EditedMixture, edited, first_history
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import TokenShards, tokenize
from data_pipeline.tokens.tokenizer import train_tokenizer
from data_pipeline.tokens.validation import check_held_out, validation_rows

ROWS = 4
CONTEXT = 24


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenShards]:
    root = tmp_path_factory.mktemp("shards")
    texts = {name: [f"{name} {number} " * (1 + number % 7) for number in range(120)] for name in ("web", "books", "code")}
    train_tokenizer(TokenizerRecipe(vocab_size=320), [one for some in texts.values() for one in some], root / "tokenizer")
    for name, some in texts.items():
        tokenize(TokensRecipe(), root / "tokenizer", name, some, root / name)
    return {name: TokenShards.open(root / name) for name in texts}


def phases(*parts: tuple[int, dict[str, float]]) -> list[PhaseRecipe]:
    return [PhaseRecipe(name=f"p{n}", steps=steps, weights=weights, max_epochs=50) for n, (steps, weights) in enumerate(parts)]


OLD = phases((6, {"web": 0.7, "books": 0.3}), (6, {"web": 0.2, "books": 0.8}))
NEW = phases((9, {"web": 0.5, "code": 0.5}), (8, {"books": 1.0}))


def places(mixture, steps: range) -> list[tuple[str, int, int]]:
    return [mixture.locate(step, index) for step in steps for index in range(ROWS)]


@pytest.mark.parametrize("step", range(13))
def test_an_edit_at_every_step(shards: dict[str, TokenShards], step: int) -> None:
    before = Mixture(OLD, shards, CONTEXT, ROWS, 3)
    history = edited(first_history(OLD), NEW, step)
    after = EditedMixture(history, shards, CONTEXT, ROWS, 3)
    assert after.num_steps == 17
    assert places(after, range(step)) == places(before, range(step))
    assert all(np.array_equal(after.row(one, index).ids, before.row(one, index).ids) for one in range(step) for index in range(ROWS))
    # What every source gives over the whole run are its own rows 0, 1, 2, ... epoch by epoch.
    seen: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for source, epoch, row in places(after, range(17)):
        seen[source].append((epoch, row))
    for source, rows in seen.items():
        whole = Mixture(phases((40, {source: 1.0})), shards, CONTEXT, ROWS, 3)
        assert rows == [(epoch, row) for _, epoch, row in places(whole, range(40))][: len(rows)]
    # The check can fail: a mixture that forgets where the sources stood reads rows again.
    if step >= 2:
        forgetful = Mixture(NEW, shards, CONTEXT, ROWS, 3, Start(step, {}))
        assert places(forgetful, range(step, 17)) != places(after, range(step, 17))


def test_the_new_shares_hold_from_the_edit_on(shards: dict[str, TokenShards]) -> None:
    after = EditedMixture(edited(first_history(OLD), NEW, 5), shards, CONTEXT, ROWS, 3)
    assert {source for source, _, _ in places(after, range(5, 9))} == {"web", "code"}
    assert {source for source, _, _ in places(after, range(9, 17))} == {"books"}
    assert after.rows_read(5) == Mixture(OLD, shards, CONTEXT, ROWS, 3).rows_read(5)
    assert sum(after.rows_read(17).values()) == 17 * ROWS


def test_edits_of_edits_and_what_is_no_edit(shards: dict[str, TokenShards]) -> None:
    once = edited(first_history(OLD), NEW, 5)
    assert edited(once, NEW, 8) is once
    twice = edited(once, OLD, 8)
    assert [entry["from_step"] for entry in twice] == [0, 5, 8]
    assert [entry["from_step"] for entry in edited(twice, NEW, 5)] == [0, 5]
    assert [entry["from_step"] for entry in edited(first_history(OLD), NEW, 0)] == [0]
    with pytest.raises(InputError, match="the phases have 12 steps and 14 are done"):
        edited(first_history(NEW), OLD, 14)
    plain = Mixture(OLD, shards, CONTEXT, ROWS, 3).fingerprint()
    prints = {EditedMixture(one, shards, CONTEXT, ROWS, 3).fingerprint() for one in (first_history(OLD), once, twice)}
    assert plain in prints
    assert len(prints) == 3


def test_epoch_caps_count_what_was_read_before_the_edit(shards: dict[str, TokenShards]) -> None:
    capped = [PhaseRecipe(name="late", steps=30, weights={"web": 1.0}, max_epochs=1.0)]
    rows = Mixture(phases((1, {"web": 1.0})), shards, CONTEXT, ROWS, 3).row_counts["web"][0]
    fits = [PhaseRecipe(name="late", steps=rows // ROWS, weights={"web": 1.0}, max_epochs=1.0)]
    EditedMixture(edited(first_history(fits), fits, 2), shards, CONTEXT, ROWS, 3)
    with pytest.raises(InputError, match="source web would be read"):
        EditedMixture(edited(first_history(OLD), capped, 5), shards, CONTEXT, ROWS, 3)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.data())
@settings(max_examples=60)
def test_counting_agrees_with_drawing(quota: dict[str, int], data) -> None:
    row = data.draw(st.integers(0, sum(quota.values())))
    counted: dict[str, int] = dict.fromkeys(quota, 0)
    for number in range(row):
        source, nth = draw(quota, number)
        assert nth == counted[source]
        counted[source] += 1
    assert drawn(quota, row) == counted


def test_validation_rows_hold_every_token_once_in_order(shards: dict[str, TokenShards]) -> None:
    web = shards["web"]
    rows = validation_rows(web, CONTEXT, 10_000)
    read = np.concatenate([row.targets[row.targets != -100] for row in rows])
    expected = np.concatenate([document[1:] for document in web.documents()])
    assert np.array_equal(read, expected)
    assert len(validation_rows(web, CONTEXT, 3)) == 3
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(validation_rows(web, CONTEXT, 3), rows, strict=False))
    check_held_out({"code": 3}, tuple(OLD))
    with pytest.raises(InputError, match=r"phase p0 trains on web \(weight 0.7\)"):
        check_held_out({"web": 3}, tuple(OLD))
    with pytest.raises(InputError, match="code = 0"):
        check_held_out({"code": 0}, tuple(OLD))
