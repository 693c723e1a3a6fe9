"""`evaluate` end to end: every kind of model, the files it writes, resume, samples, comparison and bad input."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from data_pipeline.errors import InputError
from eval import evaluate
from eval.compare import compare
from eval.exercises import normalise
from eval.models import Model, open_model
from eval.progress_log import ProgressLog
from eval.summary import summarise
from modeling import load_decoder
from modeling.checkpoint import write_checkpoint
from modeling.model_checkpoint import PREFIX, decoder_metadata

TASKS = ["mmlu", "exercises", "bits_per_byte", "preferences"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def scored(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    evaluate(model_folder, TASKS, data_folder, out)
    return out


def test_results_say_what_was_measured(scored: Path) -> None:
    results = json.loads((scored / "results.json").read_text(encoding="utf-8"))
    assert list(results["tasks"]) == TASKS
    mmlu = results["tasks"]["mmlu"]
    right = [row["right"]["letter"] for row in rows(scored) if row["task"] == "mmlu"]
    assert mmlu["score"] == pytest.approx(sum(right) / len(right))
    assert mmlu["standard_error"] == pytest.approx(math.sqrt(mmlu["score"] * (1 - mmlu["score"]) / (len(right) - 1)))
    assert (mmlu["items"], mmlu["chance"], list(mmlu["families"])) == (12, 0.25, ["largest", "smallest_number"])
    assert mmlu["scores"]["text"]["macro"] == pytest.approx(sum(one["text"]["score"] for one in mmlu["families"].values()) / 2)
    assert mmlu["protocol"]["chat"] is True
    assert all(len(task["protocol"]["hash"]) == 12 for task in results["tasks"].values())
    assert [results["tasks"][task]["items"] for task in TASKS] == [12, 9, 4, 9]


def test_letters_and_texts_equal_a_slow_reference(scored: Path, model_folder: Path, data_folder: Path) -> None:
    """One forward per option through transformers, prompt written out by hand."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()

    def log_probability(prompt: str, answer: str) -> float:
        context, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer))
        with torch.no_grad():
            table = torch.log_softmax(model(torch.tensor([whole])).logits[0].double(), -1)
        return sum(float(table[place - 1, whole[place]]) for place in range(len(context), len(whole)))

    import csv

    row = next(row for row in rows(scored) if row["task"] == "mmlu")
    with open(data_folder / "mmlu" / "test" / "largest_test.csv", encoding="utf-8", newline="") as stream:
        question, *options, _ = next(csv.reader(stream))
    body = question + "".join(f"\n{name}. {option}" for name, option in zip("ABCD", options, strict=True)) + "\nAnswer:"
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": body}], tokenize=False, add_generation_prompt=True)
    for scoring, answers in (("letter", list("ABCD")), ("text", [option + "<|end|>" for option in options])):  # a text counts with its end
        ours = row["log_probabilities"][scoring]
        assert ours == pytest.approx([log_probability(prompt, answer) for answer in answers], abs=1e-5)
        # The comparison can fail: the options in another order are other numbers.
        assert ours != pytest.approx([log_probability(prompt, answer) for answer in answers[::-1]], abs=1e-5)
    document = next(row for row in rows(scored) if row["task"] == "bits_per_byte")
    text = json.loads((data_folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"]
    assert document["bytes"] == len(text.encode())
    if document["tokens"] <= 256:
        assert document["log_probability"] == pytest.approx(log_probability("<|endoftext|>", text), abs=1e-4)


def test_a_checkpoint_scores_like_its_folder(scored: Path, model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    decoder = load_decoder(model_folder)
    tensors = {PREFIX + name: parameter.detach() for name, parameter in decoder.named_parameters()}
    write_checkpoint(tmp_path / "run" / "step-1", tensors, decoder_metadata(decoder.config))
    with pytest.raises(InputError, match="a checkpoint without a tokenizer"):
        open_model(tmp_path / "run" / "step-1")
    shutil.copytree(model_folder, tmp_path / "run" / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    found = evaluate(tmp_path / "run" / "step-1", ["mmlu"], data_folder, tmp_path / "out")
    assert found["model"]["kind"] == "checkpoint"
    assert [row for row in rows(scored) if row["task"] == "mmlu"] == rows(tmp_path / "out")


def test_a_package_is_scored_as_onnxruntime_runs_it(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """32-bit weights, so that torch is the reference: the same numbers, through cache and without."""
    from export.build import export_package
    from export.recipe import ExportRecipe

    exact = ExportRecipe(bits=32, embedding_bits=32, kl_budget=1.0, top1_budget=0.5, check_tokens=64)
    export_package(exact, model_folder, tmp_path / "package", ["Which is the largest of 3, 5 and 7? " * 9])
    package, folder = open_model(tmp_path / "package"), open_model(model_folder)
    assert package.identity.kind == "package"
    asked = [([20 + n % 7] * (n + 1), [30 + n, *range(40, 40 + n % 5)]) for n in range(60)]
    ours, theirs = package.score(asked), folder.score(asked)
    assert [one.log_probability for one in ours] == pytest.approx([one.log_probability for one in theirs], abs=1e-3)
    prompts = [[20, 21, 22], [23, 24, 25], [26, 27]]
    assert package.generate(prompts, 8) == folder.generate(prompts, 8)
    assert evaluate(package, ["mmlu"], data_folder)["tasks"]["mmlu"]["items"] == 12


def test_a_killed_run_goes_on(model_folder: Path, data_folder: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.runner.CHUNK", 4)
    calls: list[str] = []

    def stop_after_two(task: str, done: int, items: int) -> None:
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model_folder, TASKS, data_folder, tmp_path, progress=stop_after_two)
    assert not (tmp_path / "results.json").exists()
    with open(tmp_path / "progress.jsonl", "ab") as stream:
        stream.write(b'{"key": "torn')
    asked = count_requests(monkeypatch)
    evaluate(model_folder, TASKS, data_folder, tmp_path)
    kept = [json.loads(line)["row"]["id"] for line in (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(kept) == 12 + 9 + 4 + 9  # nothing twice
    assert asked["scored"] == 4 * 8 + sum(row["tokens"] > 0 for row in rows(tmp_path) if row["task"] == "bits_per_byte") + 2 * 9
    # Chunks of another size, the same numbers up to rounding; equal chunks, equal bytes.
    assert [row["right"] for row in rows(tmp_path) if "right" in row] == [row["right"] for row in rows(scored) if "right" in row]
    once = (tmp_path / "items.jsonl").read_bytes()
    evaluate(model_folder, TASKS, data_folder, tmp_path / "undisturbed")
    assert (tmp_path / "undisturbed" / "items.jsonl").read_bytes() == once
    assert (tmp_path / "undisturbed" / "results.json").read_bytes() == (tmp_path / "results.json").read_bytes()


def count_requests(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    asked = {"scored": 0}
    score = Model.score

    def counted(self: Model, requests: Any) -> Any:
        asked["scored"] += len(requests)
        return score(self, requests)

    monkeypatch.setattr(Model, "score", counted)
    return asked


def test_the_log_is_of_one_model_and_protocol(
    make_model: Callable[..., Path], data_folder: Path, scored: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    asked = count_requests(monkeypatch)
    out = tmp_path / "out"
    shutil.copytree(scored, out)
    evaluate(make_model(), ["mmlu"], data_folder, out)  # the same weights elsewhere
    assert asked["scored"] == 0
    for settings, model in (({"shots": 2}, make_model()), ({"chat": False}, make_model()), ({}, make_model(seed=1))):
        asked["scored"] = 0
        evaluate(model, ["mmlu"], data_folder, out, **settings)  # type: ignore[arg-type]
        assert asked["scored"] == 12 * 8
    (tmp_path / "progress.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match="not a progress log"):
        ProgressLog(tmp_path / "progress.jsonl")


def test_limit_takes_a_seeded_sample(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    model = open_model(model_folder)
    ids = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        found = evaluate(model, ["mmlu"], data_folder, tmp_path / name, limit=5, seed=seed)
        assert found["tasks"]["mmlu"]["items"] == 5
        ids.append([row["id"] for row in rows(tmp_path / name)])
    assert ids[0] == ids[1] != ids[2]


def test_compare_counts_flips(tmp_path: Path) -> None:
    def items(name: str, right: list[bool]) -> Path:
        path = tmp_path / name / "items.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps({"task": "mmlu", "id": str(n), "right": {"letter": one}}) + "\n" for n, one in enumerate(right)))
        return path.parent

    before = items("before", [True] * 10 + [False] * 10)
    after = items("after", [True] * 7 + [False] * 3 + [True] * 5 + [False] * 5)
    found = compare(before, after)
    assert (found["wrong_to_right"], found["right_to_wrong"], found["points"]) == (5, 3, 10.0)
    assert found["low"] < 10 < found["high"]
    assert found["p_value"] == pytest.approx(2 * (1 + 8 + 28 + 56) / 2**8)
    with pytest.raises(InputError, match="not the same items"):
        compare(before, items("short", [True] * 19))
    with pytest.raises(InputError, match="no scoring 'text'"):
        compare(before, after, scoring="text")


def test_summary_joins_models(scored: Path) -> None:
    found = summarise({"sft": scored, "dpo": scored})
    assert found["paired"]["dpo_minus_sft"]["points"] == 0
    assert found["multiple_choice"]["dpo"]["items"] == 12
    assert found["families"]["sft"]["largest"]["chance"] == 0.25
    assert set(found["preference_accuracy"]) == {"sft", "dpo"}
    assert found["bits_per_byte"]["sft"] > 0


def test_normalisation() -> None:
    assert normalise(" The answer is  42.\n") == normalise("42") == "42"
    assert normalise("The answer is 4.5.") == "4.5"
    assert normalise("Café") == normalise("cafe\u0301".upper())
    assert normalise("421") != normalise("42")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": ["mmlu", "hellaswag"]}, "no task called 'hellaswag'; there is mmlu, exercises, bits_per_byte, preferences"),
        ({"tasks": []}, "no task given"),
        ({"data": "nowhere"}, "nowhere: no such folder"),
        ({"tasks": ["exercises"], "data": "empty"}, "exercises.jsonl: no such file"),
        ({"data": "empty"}, "no <subject>_test.csv files"),
        ({"model": "nowhere"}, "nowhere: no such folder; a model is a folder"),
        ({"model": "empty"}, "not a model; expected"),
        ({"shots": 7}, "0 to 5 are possible"),
        ({"limit": 0}, "at least one item"),
        ({"max_new_tokens": 0}, "at least one token"),
        ({"protocol": "mine"}, "no protocol called 'mine'; there is lm-eval, hendrycks"),
        ({"max_new_tokens": 999, "tasks": ["exercises"]}, "does not fit the model's context"),
    ],
)
def test_bad_input_is_one_line(
    model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        evaluate(**{"model": model_folder, "tasks": ["mmlu"], "data": data_folder, "out": tmp_path / "out", **change})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "results.json").exists()


def test_the_verb(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    from phial import app

    folders = ["--data", str(data_folder), "--out", str(tmp_path)]
    arguments = ["eval", str(model_folder), "--tasks", "mmlu,bits_per_byte", *folders, "--limit", "4"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "bits_per_byte" in shown.output
    assert "largest" in shown.output
    as_json = CliRunner().invoke(app, [*arguments, "--json", "--no-chat"])
    assert json.loads(as_json.stdout)["tasks"]["mmlu"]["protocol"]["chat"] is False
