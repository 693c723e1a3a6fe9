"""Calibration against closed forms and scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from data_pipeline.quality.calibration import brier, calibrated, expected_calibration_error, isotonic, platt, reliability, temperature


def test_platt_of_two_places_gives_their_smoothed_shares() -> None:
    # With two distinct logits the line goes through both groups' mean targets: a closed form.
    logits = np.array([-1.0] * 10 + [2.0] * 10)
    hits = np.array([True] * 2 + [False] * 8 + [True] * 9 + [False])
    high, low = 12 / 13, 1 / 11  # (good + 1) / (good + 2) and 1 / (others + 2)
    left, right = (2 * high + 8 * low) / 10, (9 * high + low) / 10
    curve = platt(logits, hits)
    assert curve(np.array([-1.0, 2.0])) == pytest.approx([left, right], abs=1e-8)
    assert curve.logits[0] == pytest.approx((logit(right) - logit(left)) / 3, abs=1e-7)


def test_platt_does_not_turn_the_order_round() -> None:
    logits, hits = np.linspace(-2, 2, 40), np.arange(40) < 20
    curve = platt(logits, hits)
    assert curve.logits[0] == 0
    assert curve(logits) == pytest.approx(np.full(40, 0.5))


def test_platt_survives_a_perfect_division() -> None:
    logits = np.concatenate([np.linspace(-30, -20, 50), np.linspace(20, 30, 50)])
    chances = platt(logits, logits > 0)(logits)
    assert np.all(np.diff(chances) >= 0)
    assert 0 < chances[0] < 0.05 < 0.95 < chances[-1] < 1


def test_isotonic_is_scikit_learns_and_stays_off_the_ends() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(size=300).round(2)
    hits = chance.random(300) < expit(2 * logits)
    curve = isotonic(logits, hits)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits, hits.astype(float))
    assert curve(logits) == pytest.approx(np.clip(theirs.predict(logits), 1 / 302, 1 - 1 / 302), abs=1e-9)
    assert np.all(np.diff(curve(np.linspace(-9, 9, 500))) >= 0)


def test_isotonic_by_hand() -> None:
    curve = isotonic(np.arange(6.0), np.array([False, True, False, True, True, True]))
    assert curve(np.arange(6.0)) == pytest.approx([1 / 8, 0.5, 0.5, 7 / 8, 7 / 8, 7 / 8])


def test_what_never_varies_is_a_constant() -> None:
    assert calibrated("auto", np.arange(8.0), np.zeros(8, bool))(np.array([3.0])) == pytest.approx([0.1])
    assert calibrated("auto", np.zeros(2000), np.arange(2000) % 2 == 0).method == "isotonic"
    assert calibrated("auto", np.zeros(20), np.arange(20) % 2 == 0).method == "platt"


def test_reliability_error_and_brier_by_hand() -> None:
    chances, hits = np.array([0.1, 0.1, 0.9, 0.9, 1.0]), np.array([False, True, True, True, False])
    table = reliability(chances, hits)
    assert [(one["documents"], one["true"]) for one in table] == [(2, 0.5), (3, pytest.approx(2 / 3))]
    assert expected_calibration_error(table) == pytest.approx(2 / 5 * 0.4 + 3 / 5 * (2.8 / 3 - 2 / 3))
    assert brier(chances, hits) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 1.0) / 5)


def test_calibration_finds_overconfidence() -> None:
    chance = np.random.default_rng(3)
    true = chance.normal(size=4000)
    hits = chance.random(4000) < expit(true)
    before = expected_calibration_error(reliability(expit(5 * true), hits))
    after = expected_calibration_error(reliability(platt(5 * true, hits)(5 * true), hits))
    assert before > 0.1 > 0.03 > after


def test_temperature_undoes_a_factor() -> None:
    chance = np.random.default_rng(4)
    true = chance.normal(size=(3000, 4))
    kinds = np.array([chance.choice(4, p=np.exp(row) / np.exp(row).sum()) for row in true])
    assert temperature(true * 4, kinds) == pytest.approx(temperature(true, kinds) / 4, rel=1e-4)
    assert temperature(true, kinds) == pytest.approx(1, abs=0.1)
