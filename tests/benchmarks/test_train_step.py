"""The step benchmark: its rows, its checks before timing, its arithmetic, and a run at a tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import train_step
from benchmarks.step.agreement import Disagreement, check_isolation, check_sides, check_the_check
from benchmarks.step.rows import IGNORED, Batch, keys_seen, make_batch, row_lengths
from benchmarks.step.sides import Side, first_weights, our_side, plain_side, their_side
from benchmarks.train_step import SIZES, compare
from modeling.counts import count_parameters

TINY = SIZES["tiny"]


@pytest.fixture
def sides() -> list[Side]:
    weights = first_weights(TINY)
    return [our_side(TINY, weights, False), their_side(TINY, weights, False), plain_side(TINY, weights)]


def packed() -> Batch:
    return make_batch("packed", 2, 96, TINY.vocab_size, 0, mean=20)


def test_quick_run_writes_every_case(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    train_step.main(["--quick", "--no-compile", "--threads", "1", "--dtypes", "float32", "--out", str(out)])
    record = json.loads(out.read_text())
    assert [one["case"] for one in record["results"]] == ["packed", "padded", "short", "unpacked"]
    for one in record["results"]:
        assert set(one["tokens_per_s"]) == {"phial, eager", "transformers, eager", "plain torch, eager"}
        assert set(one["ours_times_as_fast"]) == {"transformers", "plain torch"}
        assert set(one["checks"]["agreement"]) == set(one["tokens_per_s"])
    kept, padded = record["results"][0], record["results"][1]
    assert all(share <= 1e-7 for share in kept["checks"]["leak"].values())
    assert all(real < padded["rows"] * padded["row_tokens"] for real in padded["real_tokens"])
    assert all({"machine", "commit", "date", "threads", "rounds"} <= set(one["run"]) for one in record["results"])


def test_results_of_other_cases_stay_with_their_own_run(tmp_path: Path) -> None:
    """A case that is measured again takes the place of its earlier result alone."""
    out = tmp_path / "step.json"
    earlier = [{"size": "20m", "case": case, "dtype": "float32", "run": "old"} for case in ("packed", "short")]
    out.write_text(json.dumps({"results": earlier}))
    new = [{"size": size, "case": "packed", "dtype": "float32", "run": "new"} for size in ("150m", "20m")]
    found = [(one["size"], one["case"], one["run"]) for one in train_step.with_earlier(out, new)]
    assert found == [("20m", "packed", "new"), ("20m", "short", "old"), ("150m", "packed", "new")]
    assert train_step.with_earlier(tmp_path / "none.json", new) == [new[1], new[0]]


def test_sizes_are_what_they_are_called() -> None:
    assert count_parameters(SIZES["20m"]) == 20_424_000
    assert count_parameters(SIZES["150m"]) == 152_055_552


@pytest.mark.parametrize("kind", ["packed", "padded", "unpacked"])
def test_sides_agree_and_another_model_does_not(kind: str, sides: list[Side]) -> None:
    batch = make_batch(kind, 2, 96, TINY.vocab_size, 0, mean=20)
    check_sides(sides, batch, bfloat16=False)
    check_sides(sides, batch, bfloat16=True)
    with torch.no_grad():
        sides[1].parameters[0].mul_(1.1)
    with pytest.raises(Disagreement, match="transformers, eager has"):
        check_sides(sides, batch, bfloat16=False)


def test_every_way_must_agree_not_only_the_first(sides: list[Side]) -> None:
    batch, theirs = packed(), sides[1]
    theirs.ways["compiled layers"] = theirs.ways["eager"]
    found = check_sides(sides, batch, bfloat16=False)
    assert list(found) == ["phial, eager", "transformers, eager", "transformers, compiled layers", "plain torch, eager"]
    theirs.ways["compiled layers"] = lambda one: theirs.ways["eager"](one) * 1.01
    with pytest.raises(Disagreement, match="transformers, compiled layers has"):
        check_sides(sides, batch, bfloat16=False)


def test_isolation_is_seen_and_so_is_its_lack(sides: list[Side]) -> None:
    batch = packed()
    for side in sides:
        assert check_isolation(side, "eager", batch, bfloat16=False) <= 1e-7
        assert check_the_check(side, batch, bfloat16=False) > 1e-7
        with pytest.raises(Disagreement, match="changes the loss on later ones"):
            check_isolation(side, "eager", replace(batch, kind="unpacked"), bfloat16=False)


def test_rows_are_a_function_of_their_number_and_targets_stay_in_their_document() -> None:
    batch, again, other = packed(), packed(), make_batch("packed", 2, 96, TINY.vocab_size, 1, mean=20)
    assert torch.equal(batch.ids_BT, again.ids_BT)
    assert not torch.equal(batch.ids_BT, other.ids_BT)
    last_BT = batch.documents_BT[:, 1:] != batch.documents_BT[:, :-1]
    assert bool((batch.targets_BT[:, :-1][last_BT] == IGNORED).all())
    assert torch.equal(batch.targets_BT[:, :-1][~last_BT], batch.ids_BT[:, 1:][~last_BT])
    assert keys_seen(batch) == pytest.approx((batch.positions_BT + 1).double().mean().item())


def test_padding_counts_neither_as_tokens_nor_as_targets() -> None:
    batch = make_batch("padded", 4, 96, TINY.vocab_size, 0, mean=20)
    assert batch.real_tokens == int((batch.documents_BT == 0).sum())
    assert int((batch.targets_BT != IGNORED).sum()) == batch.real_tokens - 4


def test_lengths_have_the_mean_that_is_stated() -> None:
    lengths = row_lengths("packed", 4_000_000, 400, np.random.default_rng(0))
    assert np.mean(lengths) == pytest.approx(400, rel=0.05)


def test_ratios_are_within_rounds_and_against_the_best_way(sides: list[Side]) -> None:
    ours, theirs, plain = sides
    theirs.ways["compiled"] = theirs.ways["eager"]
    seconds = {
        "phial, eager": [1.0, 2.0, 4.0],
        "transformers, eager": [9.0, 9.0, 9.0],
        "transformers, compiled": [2.0, 4.0, 8.0],
        "plain torch, eager": [3.0, 6.0, 12.0],
    }
    found = compare([ours, theirs, plain], seconds, [100, 100, 100])
    assert found["best_way"]["transformers"] == "compiled"
    assert found["ours_times_as_fast"]["transformers"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["ours_times_as_fast"]["plain torch"]["median"] == 3.0
    assert found["tokens_per_s"]["phial, eager"] == {"median": 50.0, "low": 25.0, "high": 100.0}
