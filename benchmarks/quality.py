"""The quality model beside scikit-learn's linear model on generated pages: python -m benchmarks.quality

Both learn from the same training sites whether a page's label is 3 or more, choose among the same penalties on the same validation
sites, and are measured on the same test sites. The peer is HashingVectorizer (the same words and pairs, digits as 0, 2**20 buckets),
TfidfTransformer (1 + ln(count), length 1, no idf) and LogisticRegression. Ours gives the score and six kinds in the same pass, the peer
one decision. Times are CPU seconds of one process, both alternating, ours for the mean of five passes, since one is too short for a
machine that others use too; speed is measured on pages as generated and on four joined into one.
Writes benchmarks/results/quality.json. The pages are generated: their figures say nothing about real ones.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from data_pipeline.provenance import provenance
from data_pipeline.quality.generated_pages import generated_pages
from data_pipeline.quality.labels import Example, site_of
from data_pipeline.quality.metrics import best_threshold, decision
from data_pipeline.quality.model import QualityModel
from data_pipeline.quality.recipe import TrainingSettings
from data_pipeline.quality.site_split import divided
from data_pipeline.quality.training import train_on
from data_pipeline.storage import write_json

RESULTS = Path(__file__).parent / "results" / "quality.json"
PAGES, SITES, SEED, ROUNDS, PASSES = 6_000, 120, 1, 7, 5
NOISE = (0.0, 0.1, 0.2, 0.4)
SETTINGS = TrainingSettings()
DIGITS = str.maketrans("123456789", "0" * 9)


def examples_of(noise: float) -> list[Example]:
    return [
        Example(document.id, document.text, site_of(document.url, document.id), document.url, label.score, label.kind)
        for document, label in generated_pages(PAGES, SITES, SEED, noise)
    ]


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def folded(text: str) -> str:
    """Small letters, digits as 0: the same words as ours."""
    return text.lower().translate(DIGITS)


def peer_of(texts: dict[str, list[str]], good: dict[str, np.ndarray]) -> tuple[Pipeline, float]:
    """The peer with the best validation log loss, and its threshold of the best F1 there."""
    best: tuple[float, Pipeline] | None = None
    for penalty in SETTINGS.penalties:
        model = make_pipeline(
            HashingVectorizer(
                n_features=2**SETTINGS.bits,
                ngram_range=(1, 2),
                token_pattern=r"(?u)\w+",
                preprocessor=folded,
                alternate_sign=False,
                norm=None,  # type: ignore[arg-type]  # allowed; its stubs do not know
            ),
            TfidfTransformer(use_idf=False, sublinear_tf=True),
            LogisticRegression(C=1 / (penalty * len(texts["train"])), max_iter=500),
        ).fit(texts["train"], good["train"])
        chances = model.predict_proba(texts["validation"])[:, 1].clip(1e-6, 1 - 1e-6)
        loss = -float(np.where(good["validation"], np.log(chances), np.log(1 - chances)).mean())
        if best is None or loss < best[0]:
            best = loss, model
    assert best is not None
    return best[1], best_threshold(best[1].predict_proba(texts["validation"])[:, 1], good["validation"])


def quality(folder: Path) -> tuple[dict[str, Any], QualityModel, Pipeline, list[str]]:
    """F1 of both on the test sites, and the trained models with all texts."""
    examples = sorted(examples_of(0.0), key=lambda one: one.id)
    sides = divided(examples, SETTINGS.seed, SETTINGS.validation_share, SETTINGS.test_share, SETTINGS.threshold)
    texts = {side: [examples[place].text for place in places] for side, places in sides.items()}
    good = {side: np.array([examples[place].score >= 2.5 for place in places]) for side, places in sides.items()}
    our_seconds, manifest = cpu_seconds(lambda: train_on(SETTINGS, examples, str(folder / "model")))
    model = QualityModel.load(str(folder / "model"))
    peer_seconds, (peer, threshold) = cpu_seconds(lambda: peer_of({**texts}, {**good}))
    ours = decision(model.arrays(texts["test"]).value >= model.min_score, good["test"])
    theirs = decision(peer.predict_proba(texts["test"])[:, 1] >= threshold, good["test"])
    figures = {
        "sides": manifest["labels"]["sides"],
        "phial": {**ours, "training_cpu_seconds": round(our_seconds, 2), "kinds": manifest["metrics"]["test"]["kinds"]["accuracy"]},
        "phial_calibration_error": manifest["metrics"]["test"]["expected_calibration_error"],
        "phial_model_bytes": sum(path.stat().st_size for path in (folder / "model").iterdir()),
        "scikit-learn": {**theirs, "training_cpu_seconds": round(peer_seconds, 2)},
    }
    return figures, model, peer, [one.text for one in examples]


def speed(model: QualityModel, peer: Pipeline, texts: list[str]) -> dict[str, Any]:
    """CPU seconds of both for the same texts, alternating, arrays on both sides; the ratio is of each round."""
    rounds: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        ours = cpu_seconds(lambda: [model.arrays(texts) for _ in range(PASSES)])[0] / PASSES
        listed = cpu_seconds(lambda: [model.score_many(texts) for _ in range(PASSES)])[0] / PASSES
        theirs, _ = cpu_seconds(lambda: peer.predict_proba(texts))
        rounds.append((ours, listed, theirs))
    ours, listed, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratios = sorted(theirs / ours for ours, _, theirs in rounds)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    return {
        "texts": len(texts),
        "megabytes": round(megabytes, 2),
        "phial_megabytes_per_cpu_second": round(megabytes / ours, 1),
        "scikit-learn_megabytes_per_cpu_second": round(megabytes / theirs, 2),
        "phial_score_many_megabytes_per_cpu_second": round(megabytes / listed, 1),
        "times_faster": round(statistics.median(ratios), 1),
        "times_faster_score_many": round(statistics.median(theirs / listed for _, listed, theirs in rounds), 1),
        "times_faster_least_and_most": [round(ratios[0], 1), round(ratios[-1], 1)],
    }


def noise_ladder(folder: Path) -> list[dict[str, float]]:
    """What label noise does: F1 on the test sites against the noisy labels and against the true ones."""
    true = {one.id: one.score >= 2.5 for one in examples_of(0.0)}
    rows = []
    for noise in NOISE:
        examples = examples_of(noise)
        manifest = train_on(SETTINGS, examples, str(folder / "noisy"))
        model, texts = QualityModel.load(str(folder / "noisy")), {one.id: one.text for one in examples}
        sides = divided(examples, SETTINGS.seed, SETTINGS.validation_share, SETTINGS.test_share, SETTINGS.threshold)
        ids = [examples[place].id for place in sides["test"]]
        kept = model.arrays([texts[identity] for identity in ids]).value >= model.min_score
        against_true = decision(kept, np.array([true[identity] for identity in ids]))["f1"]
        test = manifest["metrics"]["test"]
        rows.append(
            {"noise": noise, "f1": test["at_min_score"]["f1"], "ranking_area": test["ranking_area"], "f1_of_true_labels": against_true}
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_on(TrainingSettings(penalties=(1e-3,)), examples_of(0.0)[:2000], str(folder / "warm"))  # numba compiles here
        figures, model, peer, texts = quality(folder)
        print(figures, flush=True)
        model.score("compiles what is left")
        joined = ["\n\n".join(texts[place : place + 4]) for place in range(0, len(texts), 4)]
        speeds = {"as generated": speed(model, peer, texts), "four joined": speed(model, peer, joined)}
        print(speeds, flush=True)
        record = {
            **provenance("scikit-learn", "numba", "numpy", "scipy"),
            "what": "measured on generated pages; no claim about real ones",
            "pages": {"count": PAGES, "sites": SITES, "seed": SEED},
            "settings": SETTINGS.model_dump(mode="json"),
            "quality": figures,
            "speed": speeds,
            "label_noise": noise_ladder(folder),
        }
    write_json(RESULTS, record)
    print(RESULTS)


if __name__ == "__main__":
    main()
