"""From a run's results to the figures in README: what is kept, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import conversation
from benchmarks.demo import COPIED, LARGEST_BYTES, LONGEST_LIST, RESULTS, figures, shorten
from benchmarks.readme_figures import BLOCKS, letters, render, score
from data_pipeline.errors import InputError


@pytest.fixture
def kept() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def write_run(folder: Path, results: dict[str, Any]) -> Path:
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def full_results() -> dict[str, Any]:
    family = {
        "accuracy": 1 / 3,
        "stderr": 0.1,
        "items": 9,
        "chance": 0.25,
        "near_chance": True,
        "letter_accuracy": 0.2,
        "text_accuracy": 0.3,
    }
    return {
        **{name: 1.0 for name in COPIED},
        "stages": [{"name": "filter", "seconds": 1.23456789, "counts": {"samples": ["a page"], "kept": 3, "note": "long " * 100}}],
        "families": {"sft": {"dates": {**family, "low": 0.1, "macro": 0.2}}},
        "machine": {"cpu": "x", "cores": 2, "memory_bytes": 1, "python": "3.11.0", "packages": {}, "system": "left out"},
        "protocols": {"left": "out"},
    }


def test_what_is_kept_of_a_run(tmp_path: Path) -> None:
    found = figures(write_run(tmp_path, full_results()))
    assert found["stages"] == [{"name": "filter", "seconds": 1.23457, "counts": {"kept": 3}}]
    assert found["families"]["sft"]["dates"]["accuracy"] == 0.333333
    assert "low" not in found["families"]["sft"]["dates"]
    assert "system" not in found["machine"]
    assert "protocols" not in found
    assert "browser" not in found


def test_the_browser_check_is_counted(tmp_path: Path) -> None:
    check = {"questions": [{}, {}], "equal": 1, "accepted": True, "console_errors": ["SEVERE: x"]}
    (tmp_path / "browser.json").write_text(json.dumps(check))
    assert figures(write_run(tmp_path, full_results()))["browser"] == {"questions": 2, "equal": 1, "accepted": True, "console_errors": 1}


@pytest.mark.parametrize("name", ["paired", "families", "wall_s"])
def test_results_that_lack_a_key_are_refused(name: str, tmp_path: Path) -> None:
    results = full_results()
    del results[name]
    with pytest.raises(InputError, match=f"no key '{name}'"):
        figures(write_run(tmp_path, results))


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json: no such file; a run that `phial demo` has finished"):
        figures(tmp_path)


def test_long_lists_go_and_short_ones_stay() -> None:
    assert shorten({"a": list(range(LONGEST_LIST)), "b": list(range(LONGEST_LIST + 1))}) == {"a": list(range(LONGEST_LIST))}


def test_the_results_are_small_and_whole(kept: dict[str, Any]) -> None:
    assert RESULTS.stat().st_size < LARGEST_BYTES
    assert set(COPIED) <= set(kept)
    assert [one["name"] for one in kept["stages"]] == ["collect", "filter", "synthesize", "tokenize", "pretrain", "sft", "dpo", "export",
                                                       "evaluate", "bench"]  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_end_in_a_newline_and_are_written_between_their_marks(name: str, kept: dict[str, Any]) -> None:
    page = f"before\n<!-- figures: {name} -->\nold 99.9 %\n<!-- /figures -->\nafter\n"
    written = render(page, kept)
    assert written == f"before\n<!-- figures: {name} -->\n{BLOCKS[name](kept)}<!-- /figures -->\nafter\n"
    assert BLOCKS[name](kept).endswith("\n")
    assert render(written, kept) == written


def test_unknown_and_open_blocks_are_refused(kept: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no figures called 'speeds'"):
        render("<!-- figures: speeds -->\n<!-- /figures -->\n", kept)
    with pytest.raises(InputError, match="not closed"):
        render("<!-- figures: scores -->\n", kept)


def test_scores_carry_their_error() -> None:
    assert score({"accuracy": 0.641, "stderr": 0.0123}) == "64.1 ± 1.2 %"
    assert score({"accuracy": 0.641}) == "64.1 %"


def test_letter_scoring_at_chance_is_said(kept: dict[str, Any]) -> None:
    kept["multiple_choice"]["dpo"] |= {"letter_accuracy": 0.26, "letter_stderr": 0.011, "chance": 0.25}
    assert "at chance (26.0 ± 1.1 %)" in letters(kept)
    kept["multiple_choice"]["dpo"]["letter_accuracy"] = 0.4
    assert "reaches 40.0 ± 1.1 %" in letters(kept)


class Answers:
    """A package that knows one answer, after any number of turns."""

    def generate(self, turns: list[dict[str, str]], max_new_tokens: int) -> str:
        return "The answer is 80."


def test_pictures_show_questions_that_are_answered_rightly() -> None:
    rows = [("addition", "1 + 1?", "2"), ("largest", "80 or 8?", "80"), ("largest", "80 or 7?", "80"), ("smallest", "80 or 800?", "80")]
    exercises = [{"family": family, "question": question, "answer": answer} for family, question, answer in rows]
    package: Any = Answers()
    assert conversation(package, exercises, 2) == ["80 or 8?", "80 or 800?"]
    assert conversation(package, exercises, 3) == ["80 or 8?", "80 or 800?", "1 + 1?"]
