"""`phial demo --benchmarks`: the user's own MMLU files, in both official forms, in results.json and in the report."""

import csv
from pathlib import Path

import pytest

from data_pipeline.storage import read_json
from tests import tiny_chain


def write_mmlu(folder: Path) -> Path:
    """Three subjects: letters without header, numbers below a header, and one whose shots are too long for the context."""
    long = "Consider the following statement about rivers and gardens with care. " * 12
    for split, count in (("dev", 5), ("test", 6)):
        place = folder / "mmlu" / split
        place.mkdir(parents=True)
        for subject in ("law", "history", "essays"):
            text = long if subject == "essays" and split == "dev" else ""
            rows = [[f"{text}Which is {n}?", f"{n}", f"{n + 1}", f"{n + 2}", f"{n + 3}"] for n in range(count)]
            header = [["question", "A", "B", "C", "D", "answer"]] if subject == "history" else []
            answers = ["0", "1", "2", "3"] if header else ["A", "B", "C", "D"]
            with open(place / f"{subject}_{split}.csv", "w", newline="") as stream:
                csv.writer(stream).writerows(header + [[*row, answers[n % 4]] for n, row in enumerate(rows)])
    return folder


@pytest.mark.slow
def test_scores_on_own_benchmarks(recipe: Path, run: Path, tmp_path: Path) -> None:
    data = write_mmlu(tmp_path / "data")
    arguments = ["demo", "--recipe", recipe, "--out", run, "--benchmarks", data]
    done = tiny_chain.phial(*arguments, "--set", "eval.benchmark_items=12")
    assert done.returncode == 0, done.stderr[-2000:]
    found = read_json(run / "results.json")["benchmarks"]
    assert list(found["multiple_choice"]) == ["base", "sft", "dpo", "int4"]
    assert found["multiple_choice"]["int4"]["items"] == 12  # a seeded sample
    dropped = found["multiple_choice"]["base"]["truncations"]
    assert dropped["shots_dropped"] > 0
    assert dropped["items_with_dropped_shots"] > 0
    page = (run / "report.html").read_text()
    assert f"{dropped['shots_dropped']} shots were dropped" in page
    assert "expected at chance" in page

    done = tiny_chain.phial(*arguments, "--full", "--set", "eval.benchmark_items=12")
    assert done.returncode == 0, done.stderr[-2000:]
    full = read_json(run / "results.json")["benchmarks"]
    assert full["multiple_choice"]["base"]["items"] == 18
    assert full["families"]["base"].keys() == {"law", "history", "essays"}
