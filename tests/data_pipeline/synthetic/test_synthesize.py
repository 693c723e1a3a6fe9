"""The generated text: every answer checks, held-out items stay out, equal seeds give equal bytes."""

import csv
import dataclasses
from pathlib import Path
from random import Random

import pytest

from data_pipeline.errors import InputError
from data_pipeline.records import read_documents
from data_pipeline.storage import read_json_lines, sha256_of
from data_pipeline.synthetic.build import FAMILIES, check_programs, synthesize
from data_pipeline.synthetic.problem import draw_problem, is_held_out
from data_pipeline.synthetic.programs import run_programs
from data_pipeline.synthetic.recipe import SyntheticRecipe
from data_pipeline.synthetic.texts import PAIRS, multiple_choice, preference

SMALL = SyntheticRecipe(
    lessons=5, worked_examples=10, exercise_sheets=30, short_answers=10, sft_rows=40, dpo_rows=12,
    held_out_items=40, held_out_exercises=10, held_out_preferences=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "synthetic"
    synthesize(SMALL, out, seed=3)
    return out


def training_text(folder: Path) -> str:
    rows = [row for name in ("sft.jsonl", "dpo.jsonl") for row in read_json_lines(folder / name)]
    turns = [turn["content"] for row in rows for part in ("messages", "prompt", "chosen", "rejected") for turn in row.get(part, [])]
    return "\n".join([document.text for document in read_documents(folder / "documents.parquet")] + turns)


def held_out_questions(folder: Path) -> list[str]:
    questions = []
    for path in sorted((folder / "held_out" / "mmlu" / "test").glob("*.csv")):
        with path.open(newline="") as stream:
            questions += [
                "\n".join([row[0], *(f"{name}. {option}" for name, option in zip("ABCD", row[1:5], strict=True))])
                for row in csv.reader(stream)
            ]
    questions += [row["question"] for row in read_json_lines(folder / "held_out" / "exercises.jsonl")]
    for row in read_json_lines(folder / "held_out" / "preferences.jsonl"):
        questions.append(row["prompt"][0]["content"].removesuffix("\nAnswer:"))
    return questions


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_checks_a_second_way(name: str) -> None:
    family, rng = FAMILIES[name], Random(1)
    for _ in range(300):
        case = family.draw(rng)
        assert family.check(case)
        assert len({case.answer, *case.distractors}) == 4


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "programs"])
def test_the_check_refuses_a_wrong_answer(name: str) -> None:
    family, rng = FAMILIES[name], Random(2)
    for _ in range(50):
        case = family.draw(rng)
        wrong = dataclasses.replace(case, answer=case.distractors[0], distractors=(case.answer, *case.distractors[1:]))
        assert not family.check(wrong)


def test_programs_are_executed_and_a_wrong_record_is_caught() -> None:
    rng = Random(3)
    problems = [draw_problem(FAMILIES["programs"], rng, "train", 0.1) for _ in range(40)]
    assert check_programs(problems) > 30
    with pytest.raises(AssertionError, match="not the recorded"):
        check_programs([dataclasses.replace(problems[0], answer="0")])


def test_programs_run_without_builtins() -> None:
    with pytest.raises(AssertionError, match="open"):
        run_programs([("def f(values):\n    return open('/etc/hostname').read()", "f([])")])


def test_no_held_out_item_is_in_the_training_text(built: Path) -> None:
    text = training_text(built)
    questions = held_out_questions(built)
    assert len(questions) == len(FAMILIES) * (40 + 10 + 6)
    assert len(set(questions)) == len(questions)
    assert [question for question in questions if question in text] == []
    # The search does find what is there.
    some = next(read_documents(built / "documents.parquet")).text.strip().splitlines()[-1]
    assert some in text


@pytest.mark.parametrize("name", FAMILIES)
def test_operands_and_wordings_are_disjoint(name: str) -> None:
    family, rng = FAMILIES[name], Random(4)
    train = {draw_problem(family, rng, "train", 0.1).key for _ in range(400)}
    held_out = {draw_problem(family, rng, "held_out", 0.1).key for _ in range(100)}
    assert not train & held_out
    for wordings in (family.wordings, family.choice_wordings or family.wordings):
        assert not set(wordings["train"]) & set(wordings["held_out"])


def test_the_split_is_a_function_of_the_operands() -> None:
    share = sum(is_held_out("comparison", (number,), 0.2) for number in range(5000)) / 5000
    assert share == pytest.approx(0.2, abs=0.02)
    assert [is_held_out("x", (n,), 0.2) for n in range(50)] == [is_held_out("x", (n,), 0.2) for n in range(50)]


def test_equal_seeds_give_equal_bytes(built: Path, tmp_path: Path) -> None:
    synthesize(SMALL, tmp_path / "again", seed=3)
    synthesize(SMALL, tmp_path / "other", seed=4)
    names = ["documents.parquet", "sft.jsonl", "dpo.jsonl", "held_out/exercises.jsonl", "held_out/mmlu/test/units_test.csv"]
    assert [sha256_of(built / name) for name in names] == [sha256_of(tmp_path / "again" / name) for name in names]
    assert all(sha256_of(built / name) != sha256_of(tmp_path / "other" / name) for name in names)


def test_letters_are_balanced_and_right(built: Path) -> None:
    letters = []
    for path in (built / "held_out" / "mmlu" / "test").glob("*.csv"):
        with path.open(newline="") as stream:
            for row in csv.reader(stream):
                assert len(row) == 6
                letters.append(row[5])
    assert {letter: letters.count(letter) for letter in "ABCD"} == pytest.approx(dict.fromkeys("ABCD", len(letters) / 4), rel=0.25)
    problem = draw_problem(FAMILIES["units"], Random(5), "train", 0.1)
    text, letter = multiple_choice(problem, Random(6))
    assert f"\n{letter}. {problem.answer}\n" in text


def test_preferences_prefer_the_right_answer() -> None:
    rng = Random(7)
    for kind in PAIRS:
        row = preference(draw_problem(FAMILIES["dates"], rng, "train", 0.1), kind, rng)
        assert row["chosen"] != row["rejected"]
        assert row["kind"] == kind


def test_an_unknown_family_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no family called 'poetry'; there is comparison, "):
        synthesize(SMALL.model_copy(update={"families": ["poetry"]}), tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_more_held_out_items_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different held-out questions"):
        synthesize(SMALL.model_copy(update={"families": ["sequences"], "held_out_items": 5000}), tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
