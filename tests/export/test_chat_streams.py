"""`phial chat` where a stream is a pipe, closed, or too narrow for the answer."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import phial
from export import load_package
from export.session import Session

Chat = Callable[..., int]


@pytest.fixture
def chat(package_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Runs the verb with the given streams in place of the process's own and returns the exit code."""

    def run(stdin: io.TextIOBase | None, stdout: io.TextIOBase | None) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stdout", stdout)
            return phial.run(["chat", str(package_folder), "--max-new-tokens", "5", "--threads", "1"])

    return run


@pytest.fixture
def answer(package_folder: Path) -> str:
    return load_package(package_folder, 1).generate([{"role": "user", "content": "pear"}], 5)


class Interrupted(io.StringIO):
    """Ctrl-C comes where the second question is waited for."""

    def readline(self, size: int | None = -1, /) -> str:
        line = super().readline(-1 if size is None else size)
        if not line:
            raise KeyboardInterrupt
        return line


def test_a_closed_stream_is_an_empty_one(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    assert chat(None, shown) == 0
    assert shown.getvalue() == ""
    assert chat(io.StringIO("pear\n"), None) == 0
    assert capsys.readouterr().err == ""


def test_what_the_encoding_cannot_say_is_a_question_mark(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "stream", lambda *_, **__: iter(["東京 is ", "größer"]))
    narrow = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    assert chat(io.StringIO("pear\n"), narrow) == 0
    assert narrow.buffer.getvalue() == b"?? is gr??er\n"  # type: ignore[attr-defined]


def test_a_refused_question_is_an_empty_line_and_2_at_the_end(chat: Chat, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    assert chat(io.StringIO("pear\n" + "pear " * 200 + "\n/reset\npear"), shown) == 2
    assert shown.getvalue() == f"{answer}\n\n{answer}\n"
    told = capsys.readouterr().err
    assert told.count("phial: this is too long") == 1


def test_ctrl_c_ends_a_pipe(chat: Chat, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    assert chat(Interrupted("pear\n"), shown) == 130
    assert shown.getvalue() == f"{answer}\n"
    assert capsys.readouterr().err == "phial: interrupted; what was complete before is kept\n"


def test_ctrl_c_in_an_answer_ends_a_pipe_too(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces(*_: object, **__: object):
        yield "one"
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "stream", pieces)
    shown = io.StringIO()
    assert chat(io.StringIO("pear\npear\n"), shown) == 130
    assert shown.getvalue() == "one (stopped)\n"
