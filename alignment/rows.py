"""Chat rows and preference rows as they lie in JSON-lines files, each checked and named by its line.

`sft.jsonl`: `{"messages": [{"role", "content"}, ...], "family"}`.
`dpo.jsonl`: `{"prompt": [turns], "chosen": [turn], "rejected": [turn], "family", "kind"}`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.errors import InputError
from data_pipeline.storage import open_read

ROLES = ("system", "user", "assistant")

Turn = dict[str, str]


@dataclass(frozen=True)
class ChatRow:
    """One conversation that ends with the assistant's answer."""

    line: int  # where it stands in its file, from 1
    messages: list[Turn]


@dataclass(frozen=True)
class PreferenceRow:
    """One prompt that ends with the user's turn, an answer to prefer and an answer to avoid."""

    line: int
    prompt: list[Turn]
    chosen: Turn
    rejected: Turn


AnyRow = TypeVar("AnyRow", ChatRow, PreferenceRow)


def read_chat_rows(path: Path) -> list[ChatRow]:
    """Every row of an SFT file; InputError names the file, the line and the fault of the first bad row."""
    return read_rows(path, chat_row)


def read_preference_rows(path: Path) -> list[PreferenceRow]:
    """Every row of a DPO file; InputError names the file, the line and the fault of the first bad row."""
    return read_rows(path, preference_row)


def read_rows(path: Path, parse: Callable[[dict[str, Any], int, str], AnyRow]) -> list[AnyRow]:
    rows = [parse(row, line, f"{path}, line {line}") for line, row in numbered_objects(path)]
    if not rows:
        raise InputError(f"{path}: no rows; at least one is needed")
    return rows


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object) for every line that is not blank."""
    try:
        with open_read(path) as stream:
            for line, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except (json.JSONDecodeError, UnicodeDecodeError) as error:
                    raise InputError(f"{path}, line {line}: not valid JSON ({error})") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {line}: a JSON object is needed, got {type(row).__name__}")
                yield line, row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder; a JSON-lines file is needed") from error


def chat_row(row: dict[str, Any], line: int, where: str) -> ChatRow:
    messages = turns(row, "messages", where)
    check_alternation(messages, f"{where}: messages")
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{where}: messages must end with the assistant's answer, got {messages[-1]['role']!r} last")
    return ChatRow(line, messages)


def preference_row(row: dict[str, Any], line: int, where: str) -> PreferenceRow:
    prompt = turns(row, "prompt", where)
    check_alternation(prompt, f"{where}: prompt")
    if prompt[-1]["role"] != "user":
        raise InputError(f"{where}: prompt must end with the user's turn, got {prompt[-1]['role']!r} last")
    answers = [one_answer(row, key, where) for key in ("chosen", "rejected")]
    if answers[0]["content"] == answers[1]["content"]:
        raise InputError(f"{where}: chosen and rejected are the same answer {answers[0]['content']!r}; they must differ")
    return PreferenceRow(line, prompt, *answers)


def one_answer(row: dict[str, Any], key: str, where: str) -> Turn:
    answers = turns(row, key, where)
    if len(answers) != 1 or answers[0]["role"] != "assistant":
        raise InputError(f"{where}: {key} must be one assistant turn, got {', '.join(turn['role'] for turn in answers)}")
    return answers[0]


def turns(row: dict[str, Any], key: str, where: str) -> list[Turn]:
    """`row[key]` as a list of {"role", "content"} with known roles and contents that are not empty."""
    if key not in row:
        raise InputError(f"{where}: no key {key!r}; got {', '.join(row) or 'nothing'}")
    value = row[key]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} must be a list of turns with at least one, got {value!r:.80}")
    return [one_turn(turn, f"{where}: {key}[{number}]") for number, turn in enumerate(value)]


def one_turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
        raise InputError(f'{where}: a turn {{"role", "content"}} is needed, got {turn!r:.80}')
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise InputError(f"{where}: role must be one of {', '.join(ROLES)}; got {role!r}")
    if not isinstance(content, str):
        raise InputError(f"{where}: content must be a string, got {type(content).__name__}")
    if any("\ud800" <= letter <= "\udfff" for letter in content):
        raise InputError(f"{where}: content must be text that UTF-8 can carry; a lone surrogate is in it")
    if not content.strip():
        raise InputError(f"{where}: the {role} turn is empty")
    return {"role": role, "content": content}


def check_alternation(messages: list[Turn], where: str) -> None:
    """An optional system turn first, then user and assistant in turn."""
    start = 1 if messages[0]["role"] == "system" else 0
    if start == len(messages):
        raise InputError(f"{where}: only a system turn; a user turn must follow")
    for number, turn in enumerate(messages[start:], start):
        wanted = "user" if (number - start) % 2 == 0 else "assistant"
        if turn["role"] != wanted:
            raise InputError(f"{where}[{number}]: {wanted} is expected here, got {turn['role']}; user and assistant take turns")
