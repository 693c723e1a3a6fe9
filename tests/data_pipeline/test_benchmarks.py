"""Benchmark files: both forms of MMLU's CSV, JSON lines, and one line for every file of another shape."""

import json
from pathlib import Path

import pytest

from data_pipeline.benchmarks import read_exercises, read_mmlu, read_preferences, read_texts
from data_pipeline.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "benchmarks"


def write_test_file(folder: Path, content: str, name: str = "sums") -> Path:
    path = folder / "test" / f"{name}_test.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return folder


def test_both_forms_give_the_same_items(tmp_path: Path) -> None:
    row = '"What is ""two""\nplus two?",None,NA,"4, four",5,'
    letters = read_mmlu(write_test_file(tmp_path / "a", row + "C\n"), "test")
    numbers = read_mmlu(write_test_file(tmp_path / "b", "question,choice0,choice1,choice2,choice3,answer\n" + row + "2\n"), "test")
    assert letters == numbers
    (item,) = letters["sums"]
    assert item.question == 'What is "two"\nplus two?'
    assert item.options == ("None", "NA", "4, four", "5")
    assert (item.answer, item.id, item.subject) == (2, "sums/00000", "sums")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b,c,d\n", "found 4 fields"),
        ("q,a,b,c,d,E\n", "found the answer 'E', expected one of A, B, C, D (no header row)"),
        ("q,a,b,c,d,2\n", "found the answer '2', expected one of A, B, C, D"),
        ("question,a,b,c,d,answer\nq,a,b,c,d,B\n", "found the answer 'B', expected one of 0, 1, 2, 3 (with header row)"),
        ("q,a,,c,d,A\n", "found an empty field"),
        ("", "no items"),
        ('q,"a,b,c,d,A\n', "not a CSV file"),
    ],
)
def test_another_shape_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_mmlu(write_test_file(tmp_path, content), "test")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "sums_test.csv" in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no <subject>_dev\.csv files"):
        read_mmlu(write_test_file(tmp_path, "q,a,b,c,d,A\n"), "dev")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "hello"}]
    (exercise,) = read_exercises(lines(tmp_path / "e", {"id": "1", "family": "f", "question": "q", "answer": "a", "more": 1}))
    assert (exercise.question, exercise.answer) == ("q", "a")
    (pair,) = read_preferences(lines(tmp_path / "p", {"id": "1", "prompt": turn, "chosen": turn, "rejected": turn}))
    assert pair.prompt == tuple(turn)
    assert pair.kind == ""
    (text,) = read_texts(lines(tmp_path / "t", {"id": "1", "text": "abc"}))
    assert text.text == "abc"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "1", "family": "f", "question": "q"}], "expected a string 'answer', found the fields id, family, question"),
        ([{"id": "1", "family": "f", "question": "q", "answer": 4}], "expected a string 'answer', found int 4"),
        ([{"id": "1", "family": "f", "question": "q", "answer": "4"}] * 2, "the id '1' came before"),
        ([], "no rows"),
    ],
)
def test_bad_json_lines_are_one_line(tmp_path: Path, rows: list[object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_exercises(lines(tmp_path / "e.jsonl", *rows))
    assert said in str(caught.value)


def test_bad_turns_and_empty_texts_are_refused(tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "hello"}]
    with pytest.raises(InputError, match="rejected must be a list of turns"):
        read_preferences(lines(tmp_path / "p", {"id": "1", "prompt": turn, "chosen": turn, "rejected": "no"}))
    with pytest.raises(InputError, match="a turn of chosen needs the strings role and content"):
        read_preferences(lines(tmp_path / "p", {"id": "1", "prompt": turn, "chosen": [{"role": "user"}], "rejected": turn}))
    with pytest.raises(InputError, match="the text is empty"):
        read_texts(lines(tmp_path / "t", {"id": "1", "text": ""}))


@pytest.mark.skipif(not (SHARED / "mmlu").is_dir(), reason="the real MMLU files are not beside this checkout")
def test_the_real_files_have_their_known_counts() -> None:
    test, dev = read_mmlu(SHARED / "mmlu", "test"), read_mmlu(SHARED / "mmlu", "dev")
    assert (len(test), sum(map(len, test.values()))) == (57, 14_042)
    assert {len(items) for items in dev.values()} == {5}
