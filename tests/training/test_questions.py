"""Questions in the loop: the same answers as a plain computation of each option's log-probability, on any number of ranks."""

import csv
from pathlib import Path

import pytest
import torch

from data_pipeline.benchmarks import ChoiceItem
from data_pipeline.tokens.mixture import IGNORED
from data_pipeline.tokens.tokenizer import encode_text, load_tokenizer
from modeling import load_decoder
from training.events import read_events
from training.questions import rows_of, spread, summarise
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe
from training.trainer import pretrain

OPTIONS = ("the red one", "a blue thing", "nothing", "seven words that are longer than others")


def make_items(count: int) -> list[ChoiceItem]:
    return [
        ChoiceItem(id=f"{n}", subject="colours", question=f"Which of these comes {n}?", options=OPTIONS, answer=n % 4) for n in range(count)
    ]


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    folder = tmp_path / "mmlu" / "test"
    folder.mkdir(parents=True)
    with open(folder / "colours_test.csv", "w", newline="", encoding="utf-8") as stream:
        for item in make_items(9):
            csv.writer(stream).writerow([item.question, *item.options, "ABCD"[item.answer]])
    return tmp_path / "mmlu"


def test_rows_ask_for_the_option_alone(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer")
    for context in (400, 30):
        for one in rows_of(make_items(3), tokenizer, context, 16):
            asked = one.row.targets != IGNORED
            found = tokenizer.decode(one.row.targets[asked].tolist(), skip_special_tokens=False)
            assert found.strip() == OPTIONS[one.option][-len(found.strip()) :].strip()
            assert len(one.row.positions) % 16 == 0 or len(one.row.positions) == context
            if context == 400:
                whole = encode_text(tokenizer, f"Question: {make_items(3)[one.item].question}\nAnswer: {OPTIONS[one.option]}\n")
                assert one.row.ids[: len(whole)].tolist() == whole
            assert not one.row.documents[asked].any()  # what fills the row up is another document


def test_spread() -> None:
    items = make_items(10)
    assert [item.id for item in spread(items, 4)] == ["0", "2", "5", "7"]
    assert spread(items, 10) == spread(items, 99) == items


def test_the_most_probable_option_wins() -> None:
    items = make_items(2)
    scores = {(0, 0): -1.0, (0, 1): -2.0, (0, 2): -3.0, (0, 3): -30.0, (1, 0): -1.0, (1, 1): -2.0, (1, 2): -3.0, (1, 3): -1.5}
    found = summarise(items, scores)
    assert found["accuracy"] == 0.5  # the second's right answer is option 1
    assert found["accuracy_per_byte"] == 0.5 * (max((0, 1, 2, 3), key=lambda o: scores[0, o] / len(OPTIONS[o])) == 0)
    assert found["bits_per_byte"] == pytest.approx(3.0 / 0.6931471805599453 / (len(OPTIONS[0]) + len(OPTIONS[1])))


def test_answers_are_those_of_the_trained_model(corpus: Path, benchmarks: Path, tmp_path: Path) -> None:
    phases = [{"name": "one", "steps": 4, "weights": {"web": 1.0}}]
    recipe = PretrainRecipe(
        phases=phases,
        context=48,
        rows_per_step=4,
        precision="float32",
        warmup_steps=1,
        benchmarks=str(benchmarks),
        benchmark_items=7,
        evaluate_every=2,
    )
    where = {"tokens": corpus / "tokens", "tokenizer": corpus / "tokenizer"}
    pretrain(recipe, ModelRecipe(preset="tiny"), out=tmp_path / "one", **where)
    events = [event for event in read_events(tmp_path / "one") if event["kind"] == "evaluated"]
    assert [event["step"] for event in events] == [2, 4]

    decoder = load_decoder(tmp_path / "one" / "model", dtype=torch.float32).eval()
    items = spread(make_items(9), 7)
    scores = {}
    for one in rows_of(items, load_tokenizer(corpus / "tokenizer"), 48, 1):
        ids_BT = torch.from_numpy(one.row.ids)[None, :-1]
        with torch.no_grad():
            log_BTV = decoder(ids_BT).float().log_softmax(-1)
        scores[one.item, one.option] = sum(
            float(log_BTV[0, place, target]) for place, target in enumerate(one.row.targets.tolist()) if target != IGNORED
        )
    expected = summarise(items, scores)
    told = {name.removeprefix("questions/"): value for name, value in events[-1].items() if name.startswith("questions/")}
    assert told == pytest.approx(expected, abs=1e-4)
    shuffled = {(item, (option + 1) % 4): value for (item, option), value in scores.items()}
    assert told != pytest.approx(summarise(items, shuffled), abs=1e-4)  # so the check can fail

    layout = LayoutRecipe(zero_stage=3)
    pretrain(recipe, ModelRecipe(preset="tiny"), out=tmp_path / "two", layout=layout, ranks=2, **where)
    again = [event for event in read_events(tmp_path / "two") if event["kind"] == "evaluated"]
    for name in expected:
        assert again[-1][f"questions/{name}"] == pytest.approx(events[-1][f"questions/{name}"], abs=1e-3)
