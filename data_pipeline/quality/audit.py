"""A look at a model: how it does on labelled documents it never saw, and what it does to all documents."""

import dataclasses
import json
from typing import Any

import numpy as np

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.quality.labels import Example, in_batches, labelled, read_labels, read_texts
from data_pipeline.quality.metrics import kinds_measured, measured, over_thresholds, wilson
from data_pipeline.quality.model import QualityModel, ScoreArrays, read_checked
from data_pipeline.quality.site_split import side_of

BINS = 50  # of the histogram, from 0 to 5
POINTS = 200  # of the curve over thresholds
SITES = 200  # in the table
EXCERPT = 700  # characters of a sample page


def audit(folder: str, documents: str, labels: str, out: str, every_site: bool = False) -> dict[str, Any]:
    """Writes `audit.json` and `audit.html` into `out` and returns the former.

    Measured are the labelled documents of the sites on the model's test side, since those of other sites may have been trained on;
    `every_site` takes all, for labels that training never had.
    """
    from data_pipeline.quality.audit_page import audit_page

    model = QualityModel.load(folder)
    examples, missing = labelled(read_labels(labels), documents)
    used = examples if every_site else [one for one in examples if on_test_side(model, one)]
    good = [one.score >= model.parts.threshold - 0.5 for one in used]
    if not 0 < sum(good) < len(used):
        raise InputError(
            f"{labels}: {len(used)} of {len(examples)} labelled documents are of sites that training did not have, {sum(good)} with "
            f"a score of {model.parts.threshold} or more; both sorts are needed (--every-site takes all, if training never had them)"
        )
    found = model.arrays([one.text for one in used])
    record = {
        "model": model_facts(model, folder),
        "documents": {"labelled": len(examples), "measured": len(used), "without_document": len(missing), "every_site": every_site},
        "metrics": metrics_of(model, used, found),
        "histogram": histogram(model, documents, used, found),
        "curve": curve_of(found.value, np.array(good)),
        "sites": sites_of(model, used, found),
        "grams": storage_json(folder, model, "grams.json"),
        "samples": samples_of(model, used, found),
    }
    storage.write_json(f"{out}/audit.json", record)
    with storage.atomic_write(f"{out}/audit.html", "w") as stream:
        stream.write(audit_page(record))
    return record


def on_test_side(model: QualityModel, example: Example) -> bool:
    settings = model.manifest["settings"]
    return side_of(example.site, settings["seed"], settings["validation_share"], settings["test_share"]) == "test"


def storage_json(folder: str, model: QualityModel, name: str) -> Any:
    """One of the model's JSON files, held against its hash."""
    return json.loads(read_checked(folder, model.manifest, name))


def model_facts(model: QualityModel, folder: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "fingerprint": model.fingerprint,
        "threshold": model.parts.threshold,
        "min_score": model.min_score,
        "kinds": list(model.parts.kinds),
        "buckets_with_weights": len(model.parts.columns),
        **{name: model.manifest[name] for name in ("features", "labels", "search", "code", "settings")},
    }


def metrics_of(model: QualityModel, used: list[Example], found: ScoreArrays) -> dict[str, Any]:
    scores = np.array([one.score for one in used])
    record = measured(found.value, found.probability, scores, model.parts.threshold, model.min_score)
    if model.parts.kinds:
        names = [model.parts.kinds[place] for place in found.kind]
        record["kinds"] = kinds_measured([one.kind for one in used], names, model.parts.kinds)
    return record


def histogram(model: QualityModel, documents: str, used: list[Example], found: ScoreArrays) -> dict[str, Any]:
    """Scores of all documents, and of the measured ones by their label: counts between 51 edges; and what is kept of all."""
    edges = np.linspace(0, 5, BINS + 1)
    good = np.array([one.score >= model.parts.threshold - 0.5 for one in used])
    counts, kept, total = np.zeros(BINS, np.int64), 0, 0
    kinds: dict[str, int] = {}
    for batch in in_batches(read_texts(documents), 2_000):
        scores = model.arrays([one.text for one in batch])
        counts += np.histogram(scores.value, edges)[0]
        kept += int((scores.value >= model.min_score).sum())
        total += len(batch)
        for place in scores.kind[scores.kind >= 0].tolist():
            kinds[model.parts.kinds[place]] = kinds.get(model.parts.kinds[place], 0) + 1
    return {
        "edges": edges.round(6).tolist(),
        "all": counts.tolist(),
        "good": np.histogram(found.value[good], edges)[0].tolist(),
        "bad": np.histogram(found.value[~good], edges)[0].tolist(),
        "documents": total,
        "kept": kept,
        "kinds": dict(sorted(kinds.items())),
    }


def curve_of(values: np.ndarray, good: np.ndarray) -> dict[str, list[float]]:
    """Precision, recall and F1 over the threshold, at most 200 points of it."""
    curve = over_thresholds(values, good)
    places = np.unique(np.linspace(0, len(curve["threshold"]) - 1, POINTS).astype(int))
    return {name: array[places].round(6).tolist() for name, array in curve.items()}


def sites_of(model: QualityModel, used: list[Example], found: ScoreArrays) -> list[dict[str, Any]]:
    """Per site: what was good and lost, and what was kept and not good, with 95 % intervals; sites with the most errors first."""
    by_site: dict[str, list[int]] = {}
    for place, one in enumerate(used):
        by_site.setdefault(one.site, []).append(place)
    rows = []
    for site, places in by_site.items():
        good = np.array([used[place].score >= model.parts.threshold - 0.5 for place in places])
        kept = found.value[places] >= model.min_score
        lost, wrong, right = int((good & ~kept).sum()), int((~good & kept).sum()), int(good.sum())
        row = {"site": site, "documents": len(places), "good": right, "kept": int(kept.sum()), "lost": lost, "wrongly_kept": wrong}
        rows.append(row | {"lost_interval": wilson(lost, right), "wrong_interval": wilson(wrong, len(places) - right)})
    return sorted(rows, key=lambda row: (-row["lost"] - row["wrongly_kept"], row["site"]))[:SITES]


def samples_of(model: QualityModel, used: list[Example], found: ScoreArrays, count: int = 8) -> dict[str, list[dict[str, Any]]]:
    """Pages next to the threshold, and the errors that are farthest from it."""
    good = np.array([one.score >= model.parts.threshold - 0.5 for one in used])
    distance = found.value - model.min_score
    near = np.argsort(np.abs(distance), kind="stable")[:count]
    lost = [place for place in np.argsort(distance, kind="stable") if good[place] and distance[place] < 0][:count]
    wrong = [place for place in np.argsort(-distance, kind="stable") if not good[place] and distance[place] >= 0][:count]

    def row(place: int) -> dict[str, Any]:
        one = dataclasses.asdict(used[place])
        text = one.pop("text")
        kind = model.parts.kinds[int(found.kind[place])] if model.parts.kinds else ""
        said = {"value": round(float(found.value[place]), 3), "probability": round(float(found.probability[place]), 3), "said_kind": kind}
        return one | said | {"text": text[:EXCERPT], "cut": len(text) > EXCERPT}

    groups = {"near": near, "lost": lost, "wrongly_kept": wrong}
    return {name: [row(int(place)) for place in places] for name, places in groups.items()}
