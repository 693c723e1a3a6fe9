"""Bad rows are named by file, line and fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.rows import read_chat_rows, read_preference_rows
from data_pipeline.errors import InputError

USER = {"role": "user", "content": "Hello?"}
ANSWER = {"role": "assistant", "content": "Hello."}
OTHER = {"role": "assistant", "content": "No."}
GOOD_CHAT = {"messages": [USER, ANSWER], "family": "greeting"}
GOOD_PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}


def with_line_two(path: Path, good: dict[str, Any], second: Any) -> Path:
    path.write_text(json.dumps(good) + "\n" + (second if isinstance(second, str) else json.dumps(second)) + "\n")
    return path


def test_good_rows_are_read_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text(
        json.dumps(GOOD_CHAT) + "\n\n" + json.dumps({"messages": [{"role": "system", "content": "Be kind."}, USER, ANSWER]}) + "\n"
    )
    assert [row.line for row in read_chat_rows(path)] == [1, 3]
    path.write_text(json.dumps(GOOD_PAIR) + "\n")
    assert read_preference_rows(path)[0].chosen == ANSWER


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a JSON object is needed, got list"),
        ({"text": "x"}, "no key 'messages'; got text"),
        ({"messages": []}, "at least one"),
        ({"messages": [USER]}, "must end with the assistant's answer, got 'user'"),
        ({"messages": [USER, USER, ANSWER]}, r"messages\[1\]: assistant is expected here, got user"),
        ({"messages": [ANSWER]}, "user is expected here"),
        ({"messages": [{"role": "system", "content": "x"}]}, "only a system turn"),
        ({"messages": [USER, {"role": "assistant", "content": "  "}]}, "the assistant turn is empty"),
        ({"messages": [USER, {"role": "bot", "content": "x"}]}, "role must be one of system, user, assistant; got 'bot'"),
        ({"messages": [USER, {"role": "assistant"}]}, "a turn"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, "content must be a string, got int"),
        ({"messages": [USER, {"role": "assistant", "content": "\ud800"}]}, "a lone surrogate"),
    ],
)
def test_a_bad_chat_row_is_one_line(tmp_path: Path, second: Any, fault: str) -> None:
    path = with_line_two(tmp_path / "sft.jsonl", GOOD_CHAT, second)
    with pytest.raises(InputError, match=f"sft.jsonl, line 2: .*{fault}") as caught:
        read_chat_rows(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rejected": None}, "rejected must be a list"),
        ({"chosen": [ANSWER, OTHER]}, "chosen must be one assistant turn, got assistant, assistant"),
        ({"chosen": [USER]}, "chosen must be one assistant turn, got user"),
        ({"rejected": [ANSWER]}, "the same answer"),
        ({"prompt": [USER, ANSWER]}, "prompt must end with the user's turn"),
    ],
)
def test_a_bad_preference_row_is_one_line(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    path = with_line_two(tmp_path / "dpo.jsonl", GOOD_PAIR, GOOD_PAIR | change)
    with pytest.raises(InputError, match=f"dpo.jsonl, line 2: .*{fault}"):
        read_preference_rows(path)


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_chat_rows(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no rows"):
        read_chat_rows(tmp_path / "empty.jsonl")
