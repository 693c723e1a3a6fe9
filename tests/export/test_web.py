"""The chat page in headless Chromium against Python, on a small package."""

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import browser as harness
from data_pipeline.errors import InputError
from export.runtime import runtime_files
from export.serve import build_app
from export.session import load_package
from tests.export.small_package import small_package

pytestmark = pytest.mark.browser

QUESTIONS = [f"What is {a} plus {a + 3}?" for a in range(8)] + ["Größer? 東京 <|end|>", "The answer\nis"]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed")
    if "PHIAL_WEB_CACHE" not in os.environ:  # the tests have a home of their own; the runtime lies in the user's
        os.environ["PHIAL_WEB_CACHE"] = str(Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "phial" / "web")
    try:
        runtime_files()
    except InputError as error:
        pytest.skip(str(error))
    return small_package(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, str, int]]:
    return []


@pytest.fixture(scope="module")
def address(package: Path, seen: list[tuple[str, str, int]]) -> Iterator[str]:
    inner = build_app(package)

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            length = dict(scope["headers"]).get(b"content-length", b"0")
            seen.append((scope["method"], scope["path"] + "?" + scope["query_string"].decode(), int(length)))
        await inner(scope, receive, send)

    with harness.running_server(recording) as where:
        yield where


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with harness.chromium() as browser:
        harness.set_viewport(browser, harness.DESKTOP)
        assert harness.open_page(browser, address) == "ready"
        yield browser


def test_the_page_answers_with_pythons_tokens_and_a_wrong_token_is_caught(
    page: Any, package: Path, seen: list[tuple[str, str, int]]
) -> None:
    ours = load_package(package)
    twin = harness.float_twin(ours)
    before = len(seen)
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        answer = harness.page_generate(page, turns, NEW_TOKENS)
        assert answer["prompt"] == ours.encode(turns)
        assert answer["text"] == ours.tokenizer.decode(answer["tokens"])
        assert harness.compare(answer, ours, twin, turns, NEW_TOKENS)["accepted"], question
        wrong = list(answer["tokens"])
        wrong[len(wrong) // 2] ^= 1
        assert not harness.compare({**answer, "tokens": wrong}, ours, twin, turns, NEW_TOKENS)["accepted"]
    assert len(seen) == before, "answering made requests"
    assert {method for method, _, _ in seen} == {"GET"}
    assert all(length == 0 for _, _, length in seen)
    assert harness.console_errors(page) == []


def test_a_conversation_by_keyboard_and_a_picture_of_it(page: Any, address: str, tmp_path: Path) -> None:
    for size, dark in ((harness.DESKTOP, False), (harness.PHONE, True)):
        harness.set_viewport(page, size, dark)
        assert harness.open_page(page, address) == "ready"
        for question in QUESTIONS[:2]:
            harness.ask(page, question)
        assert page.execute_script("return document.querySelectorAll('.message').length") == 4
        assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
        assert page.save_screenshot(str(tmp_path / f"chat-{size[0]}.png"))
        page.execute_script("document.getElementById('new-chat').click()")
        assert page.execute_script("return document.querySelectorAll('.message').length") == 0
    assert harness.console_errors(page) == []


def test_a_package_damaged_after_the_start_is_a_readable_error_in_the_page(page: Any, package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    app = build_app(copy)
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    with harness.running_server(app) as where:
        page.execute_cdp_cmd("Network.clearBrowserCache", {})
        assert harness.open_page(page, where) == "failed"
        assert "wrong checksum" in page.execute_script("return document.getElementById('fatal-reason').textContent")
