"""Labelled documents to a quality model: divided by site, fitted, chosen, calibrated, measured, written."""

import dataclasses
import importlib.metadata
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from data_pipeline.provenance import commit
from data_pipeline.quality import grams, rubric
from data_pipeline.quality.calibration import Curve, calibrated, temperature
from data_pipeline.quality.labels import Example, hash_of, labelled, read_labels
from data_pipeline.quality.metrics import best_threshold, kinds_measured, measured
from data_pipeline.quality.model import STEPS, Parts, QualityModel, batches, write_model
from data_pipeline.quality.recipe import TrainingSettings
from data_pipeline.quality.regression import Fit, fit, log_loss
from data_pipeline.quality.site_split import SIDES, Side, divided
from data_pipeline.quality.telling_grams import telling_grams

Report = Callable[[str], None]


class Chosen(NamedTuple):
    """The fit with the least validation loss, the penalty that gave it, and every penalty's losses."""

    fits: list[Fit]
    penalty: float
    tried: list[dict[str, Any]]


def train(settings: TrainingSettings, labels: str, documents: str | None, folder: str, report: Report = lambda _: None) -> dict[str, Any]:
    """Trains a model from labels and documents (paths, URLs or globs) and writes its folder; returns the manifest."""
    report("reading labels and documents")
    examples, missing = labelled(read_labels(labels), documents)
    return train_on(settings, examples, folder, report, len(missing))


def train_on(
    settings: TrainingSettings, examples: list[Example], folder: str, report: Report = lambda _: None, missing: int = 0
) -> dict[str, Any]:
    """The same from examples in memory."""
    examples = sorted(examples, key=lambda one: one.id)  # whatever the files' order, the same model
    sides = divided(examples, settings.seed, settings.validation_share, settings.test_share, settings.threshold)
    texts: dict[Side, list[str]] = {side: [examples[place].text for place in sides[side]] for side in SIDES}
    report("hashing n-grams")
    rows, columns = training_rows(settings, texts)
    scores = np.array([one.score for one in examples])
    reached = (scores[:, None] >= np.arange(1, STEPS + 1) - 0.5).astype(float)
    report("fitting the score")
    score = chosen(settings, rows, [[reached[sides[side]]] for side in ("train", "validation")], report)
    kinds, kind_fits = fit_kinds(settings, rows, examples, sides, report)
    raw = parts_of(settings, columns, score.fits[0], kinds, kind_fits.fits if kind_fits else [])
    report("calibrating and measuring")
    parts = calibrate(settings, raw, texts["validation"], reached[sides["validation"]], [examples[one] for one in sides["validation"]])
    model = QualityModel(parts)
    facts, said = measure_sides(model, examples, sides, texts)
    names = telling_grams(parts, [examples[place] for place in sides["train"]])
    searches = {"score": {"penalty": score.penalty, "tried": score.tried}}
    searches["kinds"] = {"penalty": kind_fits.penalty, "tried": kind_fits.tried} if kind_fits else {}
    return write_model(
        folder,
        parts,
        {
            **facts,
            "settings": settings.model_dump(mode="json"),
            "labels": {
                "sha256": hash_of(examples),
                "documents": len(examples),
                "without_document": missing,
                "sides": {
                    side: {"documents": len(sides[side]), "sites": len({examples[one].site for one in sides[side]})} for side in SIDES
                },
                "scores": {str(value): int((np.floor(scores + 0.5) == value).sum()) for value in range(STEPS + 1)},
            },
            "search": searches,
            "code": {"phial": importlib.metadata.version("phial"), "commit": commit(), "rubric": rubric.VERSION},
        },
        {"grams.json": names, "test_scores.json": said},
    )


def training_rows(settings: TrainingSettings, texts: dict[Side, list[str]]) -> tuple[dict[Side, sparse.csr_matrix], np.ndarray]:
    """The sparse rows of training and validation documents, and the buckets (uint32, rising) that their columns are.

    Only buckets that occur in `min_documents` training documents are columns.
    """
    made: dict[Side, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for side in ("train", "validation"):
        shape = settings.bits, settings.word_grams, settings.character_grams
        made[side] = [grams.sparse_rows(batch, *shape) for batch in batches(texts[side])]
    counts = np.zeros(2**settings.bits, np.int32)
    for _, indices, _ in made["train"]:
        counts += np.bincount(indices, minlength=len(counts)).astype(np.int32)
    columns = np.flatnonzero(counts >= settings.min_documents).astype(np.uint32)
    place = np.full(2**settings.bits, -1, np.int32)
    place[columns] = np.arange(len(columns))
    rows: dict[Side, sparse.csr_matrix] = {}
    for side, parts in made.items():
        rows[side] = sparse.csr_matrix(sparse.vstack([narrowed(one, place, len(columns)) for one in parts]))
    return rows, columns


def narrowed(rows: tuple[np.ndarray, np.ndarray, np.ndarray], place: np.ndarray, columns: int) -> sparse.csr_matrix:
    """Sparse rows with the columns that have a place only; values are float64 from here on."""
    indptr, indices, values = rows
    kept = place[indices] >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    shape = (len(indptr) - 1, columns)
    return sparse.csr_matrix((values[kept].astype(np.float64), place[indices[kept]], before[indptr]), shape=shape)


def chosen(settings: TrainingSettings, rows: dict[Side, sparse.csr_matrix], targets: list[list[np.ndarray]], report: Report) -> Chosen:
    """Fits every target (0/1 [documents, steps]) with each penalty, from the largest down, each from the last one's place.

    `targets` are the training and the validation documents' targets; the least validation loss, added over targets, wins.
    """
    training, validation = targets
    fits: list[Fit | None] = [None] * len(training)
    best, tried = None, []
    for penalty in settings.penalties:
        fits = [
            fit(rows["train"], target, penalty, settings.tolerance, settings.max_iterations, start)
            for target, start in zip(training, fits, strict=True)
        ]
        done = [one for one in fits if one is not None]
        logits = [(rows["validation"] @ one.weights)[:, None] - one.cuts for one in done]
        loss = sum(log_loss(one, target) for one, target in zip(logits, validation, strict=True))
        converged = all(one.converged for one in done)
        tried.append({"penalty": penalty, "loss": loss, "iterations": sum(one.iterations for one in done), "converged": converged})
        report(f"penalty {penalty:g}: validation loss {loss:.4f}")
        if best is None or loss < best[0]:
            best = (loss, penalty, done)
    assert best is not None
    return Chosen(best[2], best[1], tried)


def fit_kinds(
    settings: TrainingSettings, rows: dict[Side, sparse.csr_matrix], examples: list[Example], sides: dict[Side, np.ndarray], report: Report
) -> tuple[tuple[str, ...], Chosen | None]:
    """One against the rest for every kind that both sides have; kinds need at least two of them, else there are none."""
    labels = {side: np.array([examples[place].kind for place in sides[side]]) for side in ("train", "validation")}
    kinds = tuple(kind for kind in rubric.KINDS if all((labels[side] == kind).any() for side in labels))
    if len(kinds) < 2:
        return (), None
    report(f"fitting {len(kinds)} kinds")
    inside: dict[Side, sparse.csr_matrix] = {}
    targets = []
    for side in ("train", "validation"):
        told = np.isin(labels[side], kinds)
        inside[side] = rows[side][told]
        targets.append([(labels[side][told] == kind).astype(float)[:, None] for kind in kinds])
    return kinds, chosen(settings, inside, targets, report)


def parts_of(settings: TrainingSettings, columns: np.ndarray, score: Fit, kinds: tuple[str, ...], kind_fits: list[Fit]) -> Parts:
    """The model before its calibration, with its weights as they will be on disk; buckets without any weight are left out."""
    weights = np.stack([score.weights, *(one.weights for one in kind_fits)], axis=1).astype(settings.precision)
    used = (weights != 0).any(axis=1)
    return Parts(
        bits=settings.bits,
        word_grams=settings.word_grams,
        character_grams=settings.character_grams,
        threshold=settings.threshold,
        kinds=kinds,
        columns=columns[used],
        weights=weights[used],
        cuts=score.cuts,
        kind_cuts=np.array([float(one.cuts[0]) for one in kind_fits]),
        kind_factor=1.0,
        curves=(),
    )


def calibrate(settings: TrainingSettings, parts: Parts, texts: list[str], reached: np.ndarray, examples: list[Example]) -> Parts:
    """The model with its curves and its kinds' factor, from the validation documents as the model itself scores them."""
    sums = QualityModel(parts).sums(texts)
    curves = []
    for step, cut in enumerate(parts.cuts):
        hits = reached[:, step] > 0
        if np.isfinite(cut):
            curves.append(calibrated(settings.calibration, sums[:, 0] - cut, hits))
        else:  # no training document is on the other side of this step
            curves.append(Curve("constant", np.zeros(0), np.array([(hits.sum() + 1) / (len(hits) + 2)])))
    factor = 1.0
    if parts.kinds:
        told = [place for place, one in enumerate(examples) if one.kind in parts.kinds]
        true = np.array([parts.kinds.index(examples[place].kind) for place in told])
        factor = temperature(sums[told, 1:] - parts.kind_cuts, true)
    cuts = np.where(np.isfinite(parts.cuts), parts.cuts, 0.0)
    return dataclasses.replace(parts, cuts=cuts, curves=tuple(curves), kind_factor=factor)


def measure_sides(
    model: QualityModel, examples: list[Example], sides: dict[Side, np.ndarray], texts: dict[Side, list[str]]
) -> tuple[dict[str, Any], list[list[Any]]]:
    """The thresholds chosen on validation, the metrics of both sides, and the test documents' ids with value and probability."""
    parts, metrics, min_score, said = model.parts, {}, 0.0, []
    for side in ("validation", "test"):
        inside = [examples[place] for place in sides[side]]
        scores, found = np.array([one.score for one in inside]), model.arrays(texts[side])
        if side == "validation":
            min_score = round(best_threshold(found.value, scores >= parts.threshold - 0.5), 3)
        metrics[side] = measured(found.value, found.probability, scores, parts.threshold, min_score)
        if parts.kinds:
            names = [parts.kinds[place] for place in found.kind]
            metrics[side]["kinds"] = kinds_measured([one.kind for one in inside], names, parts.kinds)
        said = [[one.id, round(float(v), 4), round(float(p), 4)] for one, v, p in zip(inside, found.value, found.probability, strict=True)]
    return {"thresholds": {"min_score": min_score}, "metrics": metrics}, said
