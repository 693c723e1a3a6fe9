"""The report from small artefacts of a run: complete, self-contained, and honest about what is missing."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.tokens.recipe import TokensRecipe
from data_pipeline.tokens.shards import tokenize
from eval import evaluate
from eval.report import write_report
from eval.summary import summarise

FUNNEL = {
    "html_bytes": 123_456,
    "steps": [
        {"step": "records", "documents": 30, "text_bytes": 90_000, "words": 9_000},
        {"step": "kept for training", "documents": 20, "text_bytes": 60_000, "words": 6_000},
    ],
    "dropped": {
        "too_short": {
            "step": "pass the quality rules",
            "documents": 10,
            "samples": [
                {"url": "http://a.example/<b>", "measure": "words", "value": 3, "threshold": 50, "text": "<script>alert(1)</script>"}
            ],
        }
    },
    "kept": {"documents": 20, "text_bytes": 60_000, "words": 6_000},
    "clean": {"documents": 5, "text_bytes": 6_000, "words": 600},
    "held_out": {"documents": 2, "text_bytes": 600, "words": 60},
    "personal_data": {"email": 4, "phone": 0},
    "broken_files": ["pages.warc.gz: truncated after 30 records"],
}
RECIPE = """
[run]
seed = 3
[pretrain]
context = 64
rows_per_step = 2
phases = [
    { name = "phase 1: web first", steps = 2, weights = { web = 1.0 } },
    { name = "phase 2: rest", steps = 1, weights = { web = 1.0 } },
]
"""


@pytest.fixture(scope="module")
def run(make_model: Callable[..., Path], data_folder: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the artefacts that a report reads, made by the real stages where they are quick."""
    root = tmp_path_factory.mktemp("run")
    for number, name in enumerate(("base", "sft", "dpo", "int4")):
        evaluate(make_model(seed=number), ["mmlu", "exercises", "bits_per_byte", "preferences"], data_folder, root / "eval" / name)
    (root / "web").mkdir()
    (root / "web" / "funnel.json").write_text(json.dumps(FUNNEL))
    (root / "recipe.toml").write_text(RECIPE)
    texts = [json.loads(line)["text"] for line in (data_folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenize(TokensRecipe(), tokenizer_folder, "web", texts, root / "tokens" / "web")
    for name, more in (("pretrain", {}), ("sft", {}), ("dpo", {"rewards/accuracies": 0.75})):
        (root / name).mkdir()
        steps = [{"step": n, "tokens": 100 * n, "loss": 9 / (n + 1), "phase": f"phase {1 + n // 3}: x", **more} for n in range(6)]
        (root / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    return root


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    return {
        **summarise({name: run / "eval" / name for name in ("base", "sft", "dpo", "int4")}),
        "stages": [{"name": "collect", "seconds": 12.5, "cpu_seconds": 11.0, "counts": {}}],
        "quantization": {"kl": 0.0123, "top1": 0.95},
        "wall_s": 500.0,
        "cpu_s": 900.0,
        "peak_rss_bytes": 3_000_000_000,
        "machine": {"cpu": "a processor", "cores": 2},
        "commit": "abc123",
    }


@pytest.fixture(scope="module")
def source(run: Path, results: dict[str, Any]) -> str:
    return write_report(run, results).read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects addresses, tags and visible text; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if tag not in ("meta", "link", "br", "img", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_is_there(source: str, results: dict[str, Any]) -> None:
    page = Page(source)
    assert not page.open
    assert page.tags.count("svg") == 7
    shown = re.sub(r"\s+", " ", page.text)
    for wanted in (
        f"{100 * results['multiple_choice']['int4']['accuracy']:.1f} %",
        "20of 30 pages kept",
        "phase 1: web first",
        "too short",
        "truncated after 30 records",
        "0.0123 nats",
        "8 min 20 s",
        "3.0 GB",
        "smallest number",
        "abc123",
        "McNemar",
    ):
        assert wanted in shown, wanted
    assert "Missing from this report" not in shown or "sizes and speeds" in shown


def test_it_loads_nothing_and_runs_no_page_text(source: str) -> None:
    page = Page(source)
    assert all(address.startswith(("#", "data:")) for address in page.addresses), page.addresses
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in source
    assert not re.search(r"@import|url\((?!#)", source)


def test_ids_are_the_plots_own(source: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))


def test_equal_artefacts_equal_bytes(run: Path, results: dict[str, Any], source: str) -> None:
    assert write_report(run, results).read_text(encoding="utf-8") == source


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    shown = Page(write_report(tmp_path, {}).read_text(encoding="utf-8")).text
    for part in ("funnel", "scores", "pretraining loss", "mixture", "quantization", "stages", "sample conversations"):
        assert re.search(rf"{part}: \S", shown), part
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "funnel.json").write_text("{broken")
    assert "funnel.json: not valid JSON" in Page(write_report(tmp_path, {}).read_text(encoding="utf-8")).text


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="Chromium and its driver are not installed")
def test_it_fits_a_phone_and_a_desk_without_complaints(run: Path, source: str) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as driver:
        for width in (390, 1280):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get((run / "report.html").as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            heights = driver.execute_script("return [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)")
            assert len(heights) == 7
            assert min(heights) > 60
        assert driver.get_log("browser") == []
