"""A build with a quality model: good pages are kept, poor ones dropped, a new threshold reads nothing again, a new model does."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_pipeline.quality.generated_pages import generated_pages
from data_pipeline.quality.labels import Example, site_of
from data_pipeline.quality.recipe import QualityRecipe, TrainingSettings
from data_pipeline.quality.training import train_on
from data_pipeline.web import measure_crawl
from data_pipeline.web.build import build
from data_pipeline.web.explain import rules_met
from data_pipeline.web.measure_crawl import measuring
from data_pipeline.web.recipe import Duplicates, Thresholds, WebRecipe
from data_pipeline.web.warc_writer import WarcWriter
from tests.data_pipeline.web.small_crawl import make_small

# Generated pages are short and repeat themselves: only the model is to judge here.
SHARES = {name: 1.0 for name in Thresholds.model_fields if name.startswith("max_")} | {"max_words": 10**6, "max_mean_word_length": 100.0}
OPEN = Thresholds.model_validate(SHARES | {name: 0 for name in Thresholds.model_fields if name.startswith("min_")})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("trained") / "model")
    examples = [
        Example(one.id, one.text, site_of(one.url, one.id), one.url, label.score, label.kind) for one, label in generated_pages(600, 30, 1)
    ]
    train_on(TrainingSettings(bits=18, penalties=(1e-4,), tolerance=1e-3), examples, folder)
    return folder


def test_pages_are_kept_by_their_score(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    made = list(generated_pages(60, 12, 2))  # of another seed: no page that the model has seen
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    with open(crawl / "pages.warc.gz", "wb") as stream:
        writer = WarcWriter(stream, "made by a test")
        for document, _ in made:
            writer.response(document.url, f"<html><body><article><p>{document.text}</p></article></body></html>".encode())
    labels = {document.url: label for document, label in made}

    def built(out: str, **quality: Any) -> tuple[WebRecipe, dict[str, dict[str, Any]], dict[str, Any]]:
        recipe = WebRecipe(
            workers=1,
            languages=(),
            rules=OPEN,
            c4_braces=False,
            held_out=0.0,
            duplicates=Duplicates(one_per_address=False),
            quality=QualityRecipe(model=model, **quality),
        )
        record = build(recipe, crawl, tmp_path / out, 0)
        return recipe, {row["url"]: row for row in pq.read_table(tmp_path / out / "ledger.parquet").to_pylist()}, record

    _, scored, record = built("web")
    assert record["speed"]["pages_measured"] == 60
    assert all(row["outcome"] == "kept" and row["quality"] is not None and row["quality_kind"] for row in scored.values())
    far = [url for url, label in labels.items() if label.score in (0, 5)]
    assert len(far) > 5
    assert all((scored[url]["quality"] > 2.5) == (labels[url].score == 5) for url in far)

    recipe, judged, record = built("web", min_score=2.5, drop_kinds=("ephemeral",))
    assert record["speed"]["pages_measured"] == 0  # from what is stored
    for url, row in judged.items():
        poor, unwanted = scored[url]["quality"] < 2.5, scored[url]["quality_kind"] == "ephemeral"
        assert row["reason"] == ("low_quality" if poor else "unwanted_kind" if unwanted else "")
    steps = {one["step"]: one["documents"] for one in record["steps"]}
    dropped = sum(row["outcome"] == "dropped" for row in judged.values())
    assert 0 < dropped < 60
    assert steps["pass the quality rules"] - steps["kept by the quality model"] == dropped
    poorest = min(judged.values(), key=lambda row: row["quality"])
    assert [rule["met"] for rule in rules_met(poorest, recipe) if rule["measure"] == "quality"] == [False]

    before = measuring(recipe)
    manifest = Path(model) / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert measure_crawl.measuring(recipe) != before
