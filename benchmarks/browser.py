"""Ten held-out questions in headless Chromium against Python's greedy tokens of the same package: python -m benchmarks.browser RUN

Reads RUN/package and RUN/synthetic/held_out/exercises.jsonl; writes RUN/browser.json, and with --images
pictures of the chat page and of RUN/report.html.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.provenance import provenance
from data_pipeline.storage import read_json_lines, write_json
from export.package import FILES
from export.sampling import Sampling
from export.serve import build_app, listen
from export.session import Package, load_package

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
# Between the page and Python where both multiply float32 activations: only the order of sums differs.
FLOAT_BOUND = 1e-3
DESKTOP, PHONE, REPORT = (1280, 800), (390, 844), (1280, 1325)


@contextlib.contextmanager
def running_server(app: Any) -> Iterator[str]:
    """Serves the app on a free port in a thread; yields its address."""
    import uvicorn

    listening = listen(None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextlib.contextmanager
def chromium(extra: tuple[str, ...] = ()) -> Iterator[Any]:
    """A fresh headless Chromium with its own profile."""
    from selenium import webdriver

    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not program or not driver:
        raise InputError("chromium and chromedriver are needed; on Debian: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}", *extra):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        browser.set_script_timeout(300)
        try:
            yield browser
        finally:
            browser.quit()


def set_viewport(browser: Any, size: tuple[int, int], dark: bool = False) -> None:
    """The page's inner size in CSS pixels, a phone's with touch, and its colour scheme."""
    phone = size[0] < 600
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_page(browser: Any, address: str, seconds: float = 120) -> str:
    """Opens the chat page and waits until it is ready or has failed; returns which."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address)
    states = ("ready", "failed")
    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(
        lambda one: (state := one.execute_script("return document.body.dataset.state")) in states and state
    )


def page_generate(browser: Any, prompt: str | list[dict[str, str]], max_new_tokens: int) -> dict[str, Any]:
    """`window.phial.generate` of the page: tokens, text, margins."""
    script = (
        "const [prompt, limit, done] = arguments;"
        "window.phial.generate(prompt, {maxNewTokens: limit}).then(done, (error) => done({error: error.message}));"
    )
    answer = browser.execute_async_script(script, prompt, max_new_tokens)
    if "error" in answer:
        raise RuntimeError(f"the page failed: {answer['error']}")
    return answer


def ask(browser: Any, text: str, seconds: float = 120) -> None:
    """Types into the page as a person does and waits for the answer's end."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    box = browser.find_element(By.ID, "question")
    first, *others = text.split("\n")
    box.send_keys(first)
    for line in others:
        box.send_keys(Keys.SHIFT + Keys.ENTER)  # Enter alone sends
        box.send_keys(line)
    box.send_keys(Keys.ENTER)
    WebDriverWait(browser, seconds, poll_frequency=0.05).until(
        lambda one: one.execute_script("return document.body.dataset.busy === 'false' && document.body.dataset.empty === 'false'")
    )


def console_errors(browser: Any) -> list[str]:
    """What the browser's console holds at the level of warnings and above."""
    return [f"{row['level']}: {row['message']}" for row in browser.get_log("browser") if row["level"] in ("WARNING", "SEVERE")]


def python_tokens(package: Package, turns: list[dict[str, str]], max_new_tokens: int) -> list[int]:
    """The greedy tokens of the same package in Python, each prompt from an empty cache."""
    package.runner.forget()
    return list(package.tokens(package.encode(turns), max_new_tokens, Sampling()))


def float_twin(package: Package) -> Package:
    """The same package with float32 activations inside its 4-bit products.

    onnxruntime's native CPU kernels round activations to int8 there (accuracy level 4); onnxruntime-web's wasm kernels do not. So the page
    must agree with this twin token by token, and may differ from the package itself by what that rounding does.
    """
    import onnx_ir as ir

    model = ir.load(package.folder / "model.onnx")
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in FILES:
            shutil.copyfile(package.folder / file, folder / file)
        (folder / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
        return Package(folder, package.manifest)


def first_difference(left: list[int], right: list[int]) -> int | None:
    """The first place where two token lists part; None where they are equal."""
    if left == right:
        return None
    pairs = zip(left, right, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def compare(answer: dict[str, Any], package: Package, twin: Package, turns: list[dict[str, str]], max_new_tokens: int) -> dict[str, Any]:
    """The page's answer against Python's. Accepted: the same tokens; or the twin's tokens, where at the step that parts from the package's

    the page's top-2 margin lies below the numeric difference there: twice the largest distance between package's and twin's logits, as
    Python measures it after the same tokens, the page having no say in it.
    """
    ours = python_tokens(package, turns, max_new_tokens)
    step, twin_step = (
        first_difference(answer["tokens"], ours),
        first_difference(answer["tokens"], python_tokens(twin, turns, max_new_tokens)),
    )
    found: dict[str, Any] = {"equal": step is None, "equal_to_float_twin": twin_step is None, "tokens": len(ours)}
    margins = answer["margins"]
    accepted = twin_step is None or (twin_step < len(margins) and margins[twin_step] < FLOAT_BOUND)
    if step is not None:
        prefix = package.encode(turns) + ours[:step]
        difference = 2 * float(abs(package.logits(prefix)[-1] - twin.logits(prefix)[-1]).max())
        margin = margins[step] if step < len(margins) else None
        found |= {"step": step, "margin": margin, "numeric_difference": difference}
        accepted = accepted and margin is not None and margin < difference
    return {**found, "accepted": accepted}


def check_run(run: Path, count: int, images: Path | None) -> dict[str, Any]:
    """The whole check of a run; the JSON that is written."""
    exercises = list(read_json_lines(run / "synthetic" / "held_out" / "exercises.jsonl"))
    families = sorted({row["family"] for row in exercises})
    by_family = [[row for row in exercises if row["family"] == family] for family in families]
    spread = [rows[turn] for turn in range(count) for rows in by_family if turn < len(rows)][:count]
    package = load_package(run / "package")
    twin = float_twin(package)
    questions = []
    with running_server(build_app(run / "package")) as address, chromium() as browser:
        set_viewport(browser, DESKTOP)
        if open_page(browser, address) != "ready":
            raise InputError(f"{run / 'package'}: the page could not load it: {browser.execute_script('return document.body.innerText')}")
        for row in spread:
            turns = [{"role": "user", "content": row["question"]}]
            answer = page_generate(browser, turns, 64)
            verdict = compare(answer, package, twin, turns, 64)
            questions.append({"id": row["id"], "question": row["question"], "answer": answer["text"], "expected": row["answer"], **verdict})
        facts = browser.execute_script("return document.getElementById('facts').textContent")
        if images:
            picture_chat(browser, address, conversation(package, exercises), images)
            if (run / "report.html").exists():
                picture_report(browser, run / "report.html", images)
        errors = console_errors(browser)
    return {
        **provenance("onnxruntime"),
        "facts": facts,
        "questions": questions,
        "equal": sum(one["equal"] for one in questions),
        "accepted": all(one["accepted"] for one in questions),
        "console_errors": errors,
    }


def conversation(package: Package, exercises: list[dict[str, Any]], count: int = 3) -> list[str]:
    """Held-out questions of different families that the package answers rightly in one conversation, for a picture of what it can do.

    Filled up with the file's first ones where it knows fewer. README says that they are chosen.
    """
    turns: list[dict[str, str]] = []
    families: set[str] = set()
    for row in exercises:
        if row["family"] in families or len(families) == count:
            continue
        asked = [*turns, {"role": "user", "content": row["question"]}]
        answer = package.generate(asked, max_new_tokens=64)
        if row["answer"] in answer.removesuffix(".").split():
            turns = [*asked, {"role": "assistant", "content": answer}]
            families.add(row["family"])
    questions = [turn["content"] for turn in turns if turn["role"] == "user"]
    return [*questions, *(row["question"] for row in exercises if row["question"] not in questions)][:count]


def picture_chat(browser: Any, address: str, questions: list[str], folder: Path) -> None:
    """chat-desktop.png and chat-phone.png: a short conversation, in light on the desktop and dark on the phone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, dark in (("chat-desktop", DESKTOP, False), ("chat-phone", PHONE, True)):
        set_viewport(browser, size, dark)
        open_page(browser, address)
        for question in questions:
            ask(browser, question)
        browser.save_screenshot(str(folder / f"{name}.png"))


def picture_report(browser: Any, report: Path, folder: Path) -> None:
    """report.png: the top of the run's report."""
    set_viewport(browser, REPORT)
    browser.get(report.resolve().as_uri())
    browser.save_screenshot(str(folder / "report.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with package/ and synthetic/held_out/exercises.jsonl")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--images", type=Path, help="also saves chat-desktop.png, chat-phone.png and report.png in this folder")
    given = parser.parse_args()
    try:
        result = check_run(given.run, given.questions, given.images)
    except InputError as error:
        sys.exit(f"benchmarks.browser: {error}")
    write_json(given.run / "browser.json", result)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if not result["accepted"] or result["console_errors"]:
        sys.exit("benchmarks.browser: the page does not agree with Python, or its console holds errors")


if __name__ == "__main__":
    main()
