"""Training on generated pages: what is learned, what noise does, what is written, and what is refused."""

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.quality.audit import audit
from data_pipeline.quality.generated_pages import generated_pages
from data_pipeline.quality.labels import Example, site_of
from data_pipeline.quality.model import QualityModel, fingerprint_of
from data_pipeline.quality.recipe import QualityRecipe, TrainingSettings
from data_pipeline.quality.training import train_on
from data_pipeline.records import Document, write_documents
from data_pipeline.storage import write_json_lines

SETTINGS = TrainingSettings(bits=18, penalties=(1e-4, 1e-5), tolerance=1e-4, validation_share=0.2, test_share=0.2)


def examples_of(noise: float = 0.0) -> list[Example]:
    return [
        Example(document.id, document.text, site_of(document.url, document.id), document.url, label.score, label.kind)
        for document, label in generated_pages(800, 40, 1, noise)
    ]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return examples_of()


@pytest.fixture(scope="module")
def trained(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = str(tmp_path_factory.mktemp("trained") / "model")
    return folder, train_on(SETTINGS, examples, folder)


def test_it_learns_what_teaches(trained: tuple[str, dict[str, Any]]) -> None:
    test = trained[1]["metrics"]["test"]
    assert test["at_min_score"]["f1"] > 0.85
    assert test["ranking_area"] > 0.97
    assert test["expected_calibration_error"] < 0.06
    assert test["kinds"]["accuracy"] > 0.8
    assert min(side["documents"] for side in trained[1]["labels"]["sides"].values()) > 80


def test_the_folder_gives_back_the_scores_it_was_measured_with(trained: tuple[str, dict[str, Any]], examples: list[Example]) -> None:
    model, texts = QualityModel.load(trained[0]), {one.id: one.text for one in examples}
    assert model.fingerprint == fingerprint_of(trained[0])
    said = json.loads((Path(trained[0]) / "test_scores.json").read_text())
    scores = model.score_many([texts[identity] for identity, _, _ in said])
    assert [[round(one.value, 4), round(one.probability, 4)] for one in scores] == [row[1:] for row in said]
    assert all(0 <= one.value <= 5 and 0 <= one.probability <= 1 and one.kind in model.parts.kinds for one in scores)
    assert model.score(texts[said[0][0]]) == scores[0]
    assert model.score_many([]) == []
    order = np.argsort(model.sums(list(texts.values()))[:, 0], kind="stable")
    assert np.all(np.diff(model.arrays(list(texts.values())).value[order]) >= -1e-12)  # calibration keeps the order


def test_the_same_labels_in_any_order_give_the_same_bytes(
    trained: tuple[str, dict[str, Any]], examples: list[Example], tmp_path: Path
) -> None:
    shuffled = examples.copy()
    random.Random(2).shuffle(shuffled)
    train_on(SETTINGS, shuffled, str(tmp_path / "again"))
    for path in sorted(Path(trained[0]).iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_noise_in_the_labels_is_seen_in_the_metrics(trained: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    noisy = train_on(SETTINGS, examples_of(noise=0.5), str(tmp_path / "noisy"))["metrics"]["test"]
    clean = trained[1]["metrics"]["test"]
    assert noisy["at_min_score"]["f1"] < clean["at_min_score"]["f1"] - 0.1
    assert noisy["ranking_area"] < clean["ranking_area"] - 0.1
    assert noisy["kinds"]["accuracy"] < clean["kinds"]["accuracy"] - 0.1


def test_shuffled_labels_give_chance(examples: list[Example], tmp_path: Path) -> None:
    scores = [one.score for one in examples]
    random.Random(5).shuffle(scores)
    mixed = [dataclasses.replace(one, score=score, kind="") for one, score in zip(examples, scores, strict=True)]
    manifest = train_on(SETTINGS, mixed, str(tmp_path / "chance"))
    assert abs(manifest["metrics"]["test"]["ranking_area"] - 0.5) < 0.12
    assert manifest["kinds"] == []
    assert QualityModel.load(str(tmp_path / "chance")).score("a text")[2:] == ("", 0.0)


def test_telling_grams_are_words_of_the_sentences_not_of_a_site(trained: tuple[str, dict[str, Any]], examples: list[Example]) -> None:
    found = json.loads((Path(trained[0]) / "grams.json").read_text())
    for title in ("score", "ephemeral"):
        for one in found[title]["for"][:10]:
            assert len({page.site for page in examples if one["gram"].split()[0].replace("0", "") in page.text.lower()}) > 1
    assert all(one["weight"] > 0 for one in found["score"]["for"])
    assert all(one["weight"] < 0 for one in found["score"]["against"])


def broken(trained: tuple[str, dict[str, Any]], tmp_path: Path, name: str, change: Any) -> str:
    folder = tmp_path / "broken"
    shutil.copytree(trained[0], folder)
    content = change((folder / name).read_bytes())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("weights.npz", lambda content: content[:-1] + b"\1", "weights.npz: damaged"),
        ("weights.npz", lambda content: content[: len(content) // 2], "weights.npz: damaged"),
        ("weights.npz", lambda _: None, "weights.npz: no such file"),
        ("manifest.json", lambda _: None, "manifest.json: no such file"),
        ("manifest.json", lambda _: b"{", "not the manifest of a quality model"),
        ("manifest.json", lambda _: b"[]", "not the manifest of a quality model"),
        ("manifest.json", lambda content: content.replace(b'"format": 1', b'"format": 2'), "format 2 with n-grams of version 1"),
        ("manifest.json", lambda content: content.replace(b'"bits": 18', b'"bits": 12'), "do not fit each other"),
        ("manifest.json", lambda content: content.replace(b'  "concept",\n', b""), "do not fit each other"),
    ],
)
def test_a_damaged_model_is_refused(trained: tuple[str, dict[str, Any]], tmp_path: Path, name: str, change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        QualityModel.load(broken(trained, tmp_path, name, change))
    assert "\n" not in str(caught.value)


def test_the_recipe(trained: tuple[str, dict[str, Any]]) -> None:
    assert QualityRecipe().fingerprint() == ""
    recipe = QualityRecipe(model=trained[0], min_score=2.5, drop_kinds=("ephemeral",))
    assert recipe.fingerprint() == fingerprint_of(trained[0])
    with pytest.raises(ValueError, match="need a model"):
        QualityRecipe(min_score=1)
    with pytest.raises(ValueError, match="no kind 'poem'"):
        QualityRecipe(model="m", drop_kinds=("poem",))


def test_the_audit(trained: tuple[str, dict[str, Any]], examples: list[Example], tmp_path: Path) -> None:
    odd = Document(id="odd", text="<script>alert(1)</script>", source="web")
    write_documents(
        tmp_path / "d.parquet", [odd, *(Document(id=one.id, text=f"{one.text} <b>&", source="web", url=one.url) for one in examples)]
    )
    labels = [{"id": one.id, "score": one.score, "kind": one.kind} for one in examples]
    write_json_lines(tmp_path / "l.jsonl", labels)
    record = audit(trained[0], str(tmp_path / "d.parquet"), str(tmp_path / "l.jsonl"), str(tmp_path / "out"))
    assert record["documents"]["measured"] == trained[1]["labels"]["sides"]["test"]["documents"]
    assert record["metrics"]["at_min_score"]["f1"] == pytest.approx(trained[1]["metrics"]["test"]["at_min_score"]["f1"], abs=0.02)
    assert sum(record["histogram"]["all"]) == 801 == record["histogram"]["documents"]
    at = record["metrics"]["at_min_score"]
    assert sum(row["good"] - row["lost"] for row in record["sites"]) + sum(row["wrongly_kept"] for row in record["sites"]) == at["kept"]
    assert json.loads((tmp_path / "out/audit.json").read_text()) == json.loads(json.dumps(record))
    page = (tmp_path / "out/audit.html").read_text()
    assert page.count("<svg") == 4
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("https://www.", "")  # nothing is loaded from elsewhere
    every = audit(trained[0], str(tmp_path / "d.parquet"), str(tmp_path / "l.jsonl"), str(tmp_path / "all"), every_site=True)
    assert every["documents"]["measured"] == 800
    write_json_lines(tmp_path / "few.jsonl", [{"id": "odd", "score": 1}])
    with pytest.raises(InputError, match="both sorts are needed"):
        audit(trained[0], str(tmp_path / "d.parquet"), str(tmp_path / "few.jsonl"), str(tmp_path / "no"))


def test_generated_pages_are_a_function_of_their_seed() -> None:
    pages = list(generated_pages(50, 5, 3))
    assert pages == list(generated_pages(50, 5, 3))
    noisy = list(generated_pages(50, 5, 3, noise=1.0))
    assert [one for one, _ in pages] == [one for one, _ in noisy]
    assert [one for _, one in pages] != [one for _, one in noisy]
    assert pages != list(generated_pages(50, 5, 4))
