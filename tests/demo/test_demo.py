"""`phial demo` from raw pages to a package: what it leaves, what it keeps when run again, what a change or damage makes it do again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import demo
from data_pipeline.engine.journal import Journal, Task
from data_pipeline.recipe import Recipe
from data_pipeline.storage import read_json, sha256_of
from tests import tiny_chain

NAMES = [stage.name for stage in demo.STAGES]
SCORES = {"accuracy", "stderr", "items", "chance"}


def again(recipe: Path, run: Path, *more: str) -> dict[str, str]:
    """Runs the demo once more; what it printed for each stage, and the whole under ""."""
    done = tiny_chain.phial("demo", "--recipe", recipe, "--out", run, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = {name: line for line in done.stdout.splitlines() for name in NAMES if re.match(rf"{name} +(kept|[0-9.]+ s) ", line)}
    assert list(lines) == NAMES, done.stdout
    return {"": done.stdout, **lines}


def redone(printed: dict[str, str]) -> list[str]:
    return [name for name in NAMES if not re.match(rf"{name} +kept ", printed[name])]


def timeless(value: Any) -> Any:
    """The value without what a clock, a memory gauge or a process decides."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in ("this_run", "date", "peak_rss_bytes", "commit")}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def test_results_have_every_key_that_other_programs_read(finished: Path) -> None:
    results = read_json(finished / "results.json")
    assert [stage["name"] for stage in results["stages"]] == NAMES
    assert all(stage["seconds"] >= 0 and isinstance(stage["counts"], dict) for stage in results["stages"])
    models = ["base", "sft", "dpo", "int4"]
    assert list(results["multiple_choice"]) == list(results["families"]) == models
    for model in models:
        assert results["multiple_choice"][model].keys() >= SCORES
        assert results["multiple_choice"][model]["items"] == 20
        assert results["multiple_choice"][model]["chance"] == 0.25
        assert set(results["families"][model]) == {"comparison", "recall"}
        assert all(family.keys() >= SCORES for family in results["families"][model].values())
    assert results["exact_answers"].keys() == set(models)
    assert all(0 < results["bits_per_byte"][model] < 20 for model in models)
    assert {"sft", "dpo"} <= results["preference_accuracy"].keys()
    assert results["quantization"]["kl"] >= 0
    assert 0 <= results["quantization"]["top1"] <= 1
    assert results["wall_s"] > 0
    assert results["cpu_s"] > 0
    assert results["peak_rss_bytes"] > 1e8
    assert {"cpu", "cores", "memory_bytes"} <= results["machine"].keys()
    assert isinstance(results["commit"], str)


class Resources(HTMLParser):
    """Every address that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loads = {"src", "srcset", "data", "poster", "background"} | ({"href"} if tag in ("link", "image", "use") else set())
        self.found += [value or "" for name, value in attrs if name.removeprefix("xlink:") in loads]


def test_the_report_stands_alone_and_names_every_stage(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    resources = Resources()
    resources.feed(page)
    assert [one for one in resources.found if not one.startswith(("data:", "#"))] == []
    styles = "".join(re.findall(r"<style.*?</style>", page, re.DOTALL))
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", styles)
    assert [name for name in NAMES if name not in page] == []
    assert "exact duplicate" in page.replace("_", " ")


def test_the_check_for_resources_can_fail() -> None:
    resources = Resources()
    resources.feed(
        '<img src="data:image/png;base64,AA"><script src="https://example.org/a.js"></script><a href="https://example.org">x</a>'
    )
    assert resources.found == ["data:image/png;base64,AA", "https://example.org/a.js"]


def test_the_package_answers(finished: Path) -> None:
    from export import load_package

    answer = load_package(finished / "package").generate([{"role": "user", "content": "Which is larger, 3 or 5?"}], max_new_tokens=4)
    assert isinstance(answer, str)


def test_what_was_printed_names_each_stage_and_the_next_commands(finished: Path) -> None:
    printed = (finished.parent / "printed.txt").read_text()
    assert all(re.search(rf"^{name} ", printed, re.MULTILINE) for name in NAMES)
    assert f"phial chat {finished / 'package'}" in printed
    assert "exact duplicate 1" in printed


def test_run_again_from_its_own_recipe_keeps_everything(finished: Path, run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    shutil.copy(run / "recipe.toml", own)
    written = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert redone(again(own, run)) == []
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == written
    assert timeless(read_json(run / "results.json")) == timeless(read_json(finished / "results.json"))
    assert Recipe.load(run / "recipe.toml").tables == Recipe.load(own).tables
    assert read_json(run / "results.json")["peak_rss_bytes"] >= read_json(finished / "results.json")["peak_rss_bytes"]


def test_a_changed_setting_redoes_its_stage_and_what_follows(recipe: Path, run: Path) -> None:
    before = sha256_of(run / "sft/model/model.safetensors")
    printed = again(recipe, run, "--set", "dpo.steps=2")
    assert redone(printed) == ["dpo", "export", "evaluate", "bench"]
    assert "dpo: done again, because its settings" in printed[""]
    assert sha256_of(run / "sft/model/model.safetensors") == before


def test_changed_pretraining_starts_over_and_says_so(recipe: Path, run: Path) -> None:
    before = sha256_of(run / "pretrain/model/model.safetensors")
    printed = again(recipe, run, "--set", "pretrain.learning_rate=1e-3")
    assert redone(printed) == NAMES[NAMES.index("pretrain") :]
    assert "training starts over" in printed[""]
    assert sha256_of(run / "pretrain/model/model.safetensors") != before
    assert read_json(run / "pretrain/result.json")["resumed_from"] is None


def test_damaged_outputs_are_made_again_and_named(recipe: Path, finished: Path, run: Path) -> None:
    tokens = run / "tokens/web/tokens-00000.bin"
    content = bytearray(tokens.read_bytes())
    content[100] ^= 1
    tokens.write_bytes(content)
    (run / "package/model.onnx").unlink()
    with open(run / "pretrain/model/model.safetensors", "ab") as stream:
        stream.write(b"x")
    printed = again(recipe, run)
    assert redone(printed) == ["tokenize", "pretrain", "export"]
    assert "tokenize: done again, because tokens/web/tokens-00000.bin is not as it was written" in printed[""]
    assert "export: done again, because package/model.onnx is missing" in printed[""]
    for name in ("tokens/web/tokens-00000.bin", "pretrain/model/model.safetensors", "package/model.onnx"):
        assert sha256_of(run / name) == sha256_of(finished / name)


def test_a_second_demo_on_the_same_folder_is_refused(recipe: Path, run: Path) -> None:
    before = (run / "recipe.toml").read_bytes()
    with Journal(run).claim(Task(id="demo", fingerprint="")):
        done = tiny_chain.phial("demo", "--recipe", recipe, "--out", run, "--set", "dpo.steps=2")
    assert done.returncode == 2
    assert re.fullmatch(rf"phial: {re.escape(str(run))}: demo is being done by process {os.getpid()} on .*\n", done.stderr)
    assert (run / "recipe.toml").read_bytes() == before
    assert redone(again(recipe, run)) == []


def test_two_demos_at_once(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "phial", "demo", "--recipe", str(recipe), "--out", str(out)]
    first = subprocess.Popen(
        command,
        env=tiny_chain.environment(),
        cwd=tiny_chain.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + 120
        while not (out / "journal/plan.json").exists():
            assert time.monotonic() < limit
            assert first.poll() is None
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGSTOP)  # however slow this machine is, the first is still at work when the second comes
        second = tiny_chain.phial("demo", "--recipe", recipe, "--out", out)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert f"demo is being done by process {first.pid}" in second.stderr


def test_json_prints_the_results_alone(recipe: Path, run: Path) -> None:
    done = tiny_chain.phial("demo", "--recipe", recipe, "--out", run, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == read_json(run / "results.json")


@pytest.mark.slow
def test_the_verbs_one_by_one_make_what_the_demo_makes(recipe: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for words in (
        ["data", "collect", run / "crawl", "--recipe", recipe],
        ["data", "build", recipe, "--out", run],
        ["data", "synthesize", recipe, "--out", run],
        ["tokenizer", "train", recipe, "--out", run],
        ["data", "tokenize", recipe, "--out", run],
        ["pretrain", recipe, "--out", run],
        ["sft", recipe, "--out", run],
        ["dpo", recipe, "--out", run],
        ["export", run / "dpo/model", "--out", run / "package", "--recipe", recipe],
        ["eval", run / "package", "--data", run / "synthetic/held_out", "--out", run / "eval/int4", "--scoring", "text", "--chat"],
    ):
        done = tiny_chain.phial(*words)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    folders = ("web", "synthetic", "tokenizer", "tokens", "pretrain/model", "sft/model", "dpo/model")
    names = [path.relative_to(finished) for folder in folders for path in sorted((finished / folder).rglob("*")) if path.is_file()]
    same = {str(name): sha256_of(run / name) == sha256_of(finished / name) for name in names if name.name != "speed.json"}
    assert [name for name, equal in same.items() if not equal] == []
    assert {"synthetic/documents.parquet", "synthetic/held_out/documents.jsonl", "tokenizer/tokenizer.json"} <= same.keys()
    assert sha256_of(run / "package/model.onnx.data") == sha256_of(finished / "package/model.onnx.data")
    scores = [read_json(one / "eval/int4/results.json")["tasks"]["mmlu"]["score"] for one in (run, finished)]
    assert scores[0] == scores[1]
