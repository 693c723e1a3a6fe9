"""Every form of benchmark file gives its questions and right answers."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.benchmark_items import benchmark_items
from data_pipeline.errors import InputError

FORMS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "plain": ({"id": "e1", "question": "Which?", "answer": "this"}, ("Which?", "this")),
    "letters in a list": ({"passage": "P.", "question": "Q", "options": ["(A)one", "(B)two"], "label": "B"}, ("P.\nQ", "two")),
    "two right letters": ({"question": "Q", "options": ["(A)one", "(B)two"], "label": ["A", "B"]}, ("Q", "one\ntwo")),
    "letters in an object": ({"question": "Q", "options": {"A": "one", "B": "two"}, "answer": "B"}, ("Q", "two")),
    "a text that is no letter": ({"question": "Q", "options": ["one", "two"], "answer": "two"}, ("Q", "two")),
    "a place": ({"query": "Q", "choices": ["one", "two"], "gold": 1}, ("Q", "two")),
    "labelled options inside": (
        {"question": {"stem": "Q", "choices": [{"label": "A", "text": "one"}, {"label": "B", "text": "two"}]}, "answerKey": "B"},
        ("Q", "two"),
    ),
    "two contexts": ({"context_options": ["one so", "two so"], "continuation": "it ends.", "gold": 1}, ("two so", "it ends.")),
    "a chain": ({"context": "C", "chain_of_thought": "1 + 1", "answer": "2"}, ("C", "1 + 1\n2")),
    "code": ({"task_id": "T/1", "prompt": "def f():", "canonical_solution": " return 1"}, ("def f():", " return 1")),
    "input and target": ({"input": "I", "target": "T"}, ("I", "T")),
    "turns": ({"question_id": 81, "turns": ["first", "second"]}, ("first\nsecond", "")),
    "reference turns": ({"question_id": 1, "choices": [{"index": 0, "turns": ["one", "two"]}]}, ("", "one\ntwo")),
    "instances": ({"instruction": "Do", "instances": [{"input": "i", "output": "o"}]}, ("Do\ni", "o")),
    "targets": ({"question": "Q", "mc1_targets": {"right": 1, "wrong": 0}, "mc2_targets": {"x": 1}}, ("Q", "right")),
    "preferences": (
        {"prompt": [{"role": "user", "content": "P"}], "chosen": [{"role": "assistant", "content": "good"}], "rejected": []},
        ("P", "good"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_each_form(form: str, tmp_path: Path) -> None:
    row, (question, answer) = FORMS[form]
    (tmp_path / "some.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (item,) = benchmark_items(tmp_path)
    assert (item.task, item.split, item.question, item.answer) == ("some", "", question, answer)


def test_files_give_tasks_and_splits(tmp_path: Path) -> None:
    row = {"question": "Q", "answer": "A"}
    for name in ("mmlu/test", "mmlu/dev", "gsm8k", "suite", "piqa"):
        (tmp_path / name).mkdir(parents=True)
    with open(tmp_path / "mmlu/test/law_test.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerow(["Why?", "one", "two", "three", "four", "C"])
    (tmp_path / "gsm8k/test.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "gsm8k/LICENSE").write_text("words that are no item")
    (tmp_path / "suite/words.json").write_text(json.dumps({"canary": "c", "examples": [{"input": "I", "target": "T"}]}))
    (tmp_path / "suite/none.json").write_text(json.dumps({"law": ["a"]}))
    (tmp_path / "suite/truth.csv").write_text('\ufeffType,Question,Best Answer\nx,"Is it, so?",No\n', encoding="utf-8")
    (tmp_path / "suite/shots.csv").write_text("""a,b\nsample,"{'question': 'Q', 'options': ['(A)x', '(B)y'], 'label': 'B'}"\n""")
    (tmp_path / "suite/code.jsonl.gz").write_bytes(gzip.compress(json.dumps({"prompt": "P", "completion": "C"}).encode()))
    (tmp_path / "suite/cot.txt").write_text("One block.\n\nQ: two\nA: three\n")
    (tmp_path / "piqa/valid.jsonl").write_text(json.dumps({"goal": "G", "question": "G", "sol1": "s1", "sol2": "s2"}) + "\n")
    (tmp_path / "piqa/valid-labels.lst").write_text("1\n")
    (tmp_path / "documents.jsonl").write_text(json.dumps({"id": "d1", "text": "A page."}) + "\n")
    counts: dict[str, int] = {}
    found = [
        (item.task, item.split, item.id, item.question, item.answer)
        for item in benchmark_items(tmp_path, lambda path, count: counts.update({path.name: count}))
    ]
    assert found == [
        ("bits_per_byte", "", "d1", "A page.", ""),
        ("gsm8k", "test", "00000", "Q", "A"),
        ("mmlu", "test", "law/00000", "Why?", "three"),
        ("piqa", "valid", "00000", "G", "s2"),
        ("suite/code", "", "00000", "P", "C"),
        ("suite/cot", "", "00000", "One block.", ""),
        ("suite/cot", "", "00001", "Q: two\nA: three\n", ""),
        ("suite/shots", "", "00000", "sample", ""),
        ("suite/shots", "", "00001", "Q", "y"),
        ("suite/truth", "", "00000", "Is it, so?", "No"),
        ("suite/words", "", "00000", "I", "T"),
    ]
    assert counts["none.json"] == 0
    (tmp_path / "suite/torn.jsonl").write_text('{"question": "Q')
    with pytest.raises(InputError, match=r"torn.jsonl: not valid JSON"):
        list(benchmark_items(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        list(benchmark_items(tmp_path / "none"))
    with pytest.raises(InputError, match="no benchmark files"):
        list(benchmark_items(tmp_path / "mmlu/dev"))
