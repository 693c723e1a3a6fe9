"""The quality model: a folder with weights and a manifest, and the scores it gives."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.quality import grams
from data_pipeline.quality.calibration import Curve

FORMAT = 1
MODEL_FILES = {"weights.npz", "manifest.json", "grams.json", "test_scores.json"}
STEPS = 5  # from 0 to 5
BATCH_CHARACTERS = 4_000_000  # of texts that are scored in one go


class Score(NamedTuple):
    """What the model says of a text: a score from 0 to 5, the chance that a teacher gives the threshold or more, and the likeliest kind.

    `kind` is "" and its probability 0 where the model was trained without kinds.
    """

    value: float
    probability: float
    kind: str
    kind_probability: float


@dataclass(frozen=True)
class Parts:
    """What a model consists of."""

    bits: int
    word_grams: int
    character_grams: int
    threshold: int
    kinds: tuple[str, ...]
    columns: np.ndarray  # uint32 [columns], rising: the buckets that have weights
    weights: np.ndarray  # float16 or float32 [columns, 1 + kinds]: the score's, then one column a kind
    cuts: np.ndarray  # float64 [5]; 0 where the curve is a constant
    kind_cuts: np.ndarray  # float64 [kinds]
    kind_factor: float  # on the kinds' logits, before the softmax
    curves: tuple[Curve, ...]  # of the five steps


class ScoreArrays(NamedTuple):
    """Scores of many texts: float64 [texts] each, kinds as int64 places in the model's kinds, -1 without kinds."""

    value: np.ndarray
    probability: np.ndarray
    kind: np.ndarray
    kind_probability: np.ndarray


class QualityModel:
    """Scores texts. One call of `score_many` for many texts is much faster than many of `score`. Threads may share a model."""

    def __init__(self, parts: Parts, manifest: dict[str, Any] | None = None, fingerprint: str = "") -> None:
        self.parts = parts
        self.manifest = manifest or {}
        self.fingerprint = fingerprint
        self.marks = grams.marks_of(parts.columns, parts.bits)
        self.weights = np.zeros((len(parts.columns), grams.LANES), np.float32)
        self.weights[:, : 1 + len(parts.kinds)] = parts.weights

    @classmethod
    def load(cls, folder: str) -> "QualityModel":
        """A model folder, its hashes checked; a damaged, incomplete or foreign one is an error of one line."""
        manifest, fingerprint = read_manifest(folder)
        return cls(read_parts(folder, manifest), manifest, fingerprint)

    @property
    def min_score(self) -> float:
        """The score with the best F1 on the validation sites: what `[web.quality] min_score` may be set to."""
        return float(self.manifest["thresholds"]["min_score"])

    def sums(self, texts: list[str]) -> np.ndarray:
        """float64 [texts, 1 + kinds]: the weighted sums before cuts and calibration."""
        parts = self.parts
        shape = parts.bits, parts.word_grams, parts.character_grams
        found = [grams.weighted_sums(batch, *shape, self.weights, self.marks) for batch in batches(texts)]
        return np.concatenate([np.zeros((0, grams.LANES)), *found])[:, : 1 + len(parts.kinds)]

    def arrays(self, texts: list[str]) -> ScoreArrays:
        """The scores as arrays."""
        return self.arrays_of(self.sums(texts))

    def arrays_of(self, sums: np.ndarray) -> ScoreArrays:
        parts = self.parts
        reached = np.stack([curve(sums[:, 0] - cut) for curve, cut in zip(parts.curves, parts.cuts, strict=True)])
        reached = np.minimum.accumulate(reached, axis=0)  # a higher score is never likelier than a lower one
        value, probability = reached.sum(axis=0), reached[parts.threshold - 1]
        if not parts.kinds:
            return ScoreArrays(value, probability, np.full(len(sums), -1), np.zeros(len(sums)))
        logits = parts.kind_factor * (sums[:, 1:] - parts.kind_cuts)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        kind = chances.argmax(axis=1)
        return ScoreArrays(value, probability, kind, chances.max(axis=1) / chances.sum(axis=1))

    def score(self, text: str) -> Score:
        """The score of one text."""
        return self.score_many([text])[0]

    def score_many(self, texts: Sequence[str]) -> list[Score]:
        """The scores of texts, in their order."""
        found = self.arrays(list(texts))
        names = [*self.parts.kinds, ""]  # place -1 is the last
        columns = found.value.tolist(), found.probability.tolist(), [names[place] for place in found.kind.tolist()]
        return list(map(Score, *columns, found.kind_probability.tolist()))


def batches(texts: list[str]) -> Iterator[list[str]]:
    """The texts in lists of at most a few megabytes, or of one text that is larger."""
    batch, characters = [], 0
    for text in texts:
        if batch and characters + len(text) > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def weights_file(parts: Parts) -> bytes:
    """The arrays as an .npz file: the same arrays, the same bytes."""
    stream = io.BytesIO()
    arrays = {"columns": parts.columns, "weights": parts.weights, "cuts": parts.cuts, "kind_cuts": parts.kind_cuts}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def write_model(folder: str, parts: Parts, facts: dict[str, Any], other_files: dict[str, Any]) -> dict[str, Any]:
    """The model folder, whole or not at all; `facts` go into the manifest, `other_files` are JSON values by file name."""
    files = {"weights.npz": weights_file(parts)}
    files |= {name: (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode() for name, value in other_files.items()}
    manifest = {
        "format": FORMAT,
        "features": {
            "version": grams.VERSION,
            "bits": parts.bits,
            "word_grams": parts.word_grams,
            "character_grams": parts.character_grams,
        },
        "threshold": parts.threshold,
        "kinds": list(parts.kinds),
        "kind_factor": parts.kind_factor,
        "curves": [[one.method, one.logits.tolist(), one.probabilities.tolist()] for one in parts.curves],
        "files": {name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()},
        **facts,
    }
    with storage.atomic_folder(folder) as place:
        for name, content in files.items():
            (place / name).write_bytes(content)
        storage.write_json(place / "manifest.json", manifest)
    return manifest


def read_bytes(path: str) -> bytes:
    try:
        with storage.open_read(path) as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file; the folder of a model that `phial data quality train` has written is needed") from error


def fingerprint_of(folder: str) -> str:
    """SHA-256 of the folder's manifest, which holds the hashes of the other files."""
    return hashlib.sha256(read_bytes(f"{folder}/manifest.json")).hexdigest()


def read_manifest(folder: str) -> tuple[dict[str, Any], str]:
    """The manifest, its form checked, and its SHA-256."""
    path = f"{folder}/manifest.json"
    content = read_bytes(path)
    try:
        manifest = json.loads(content)
        features = manifest["features"]
        if manifest["format"] != FORMAT or features["version"] != grams.VERSION:
            raise InputError(
                f"{path}: format {manifest['format']} with n-grams of version {features['version']}; {FORMAT} and {grams.VERSION} can be "
                "read: train the model again"
            )
        if not 10 <= features["bits"] <= 28 or not 1 <= features["word_grams"] <= 8 or not 0 <= features["character_grams"] <= 16:
            raise InputError(f"{path}: features {features} are out of range")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not the manifest of a quality model ({type(error).__name__}: {error})") from error
    return manifest, hashlib.sha256(content).hexdigest()


def read_checked(folder: str, manifest: dict[str, Any], name: str) -> bytes:
    """One of the folder's files, held against its hash."""
    content, path = read_bytes(f"{folder}/{name}"), f"{folder}/{name}"
    try:
        wanted = str(manifest["files"][name]["sha256"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder}/manifest.json: it does not tell of {name}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise InputError(f"{path}: damaged: its SHA-256 is {found[:12]}..., the manifest says {wanted[:12]}...")
    return content


def read_parts(folder: str, manifest: dict[str, Any]) -> Parts:
    """The model's parts, each held against the others."""
    content = read_checked(folder, manifest, "weights.npz")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            columns, weights, cuts, kind_cuts = (arrays[name] for name in ("columns", "weights", "cuts", "kind_cuts"))
        features, kinds = manifest["features"], tuple(map(str, manifest["kinds"]))
        curves = tuple(Curve(method, np.array(logits, float), np.array(chances, float)) for method, logits, chances in manifest["curves"])
        parts = Parts(
            bits=features["bits"],
            word_grams=features["word_grams"],
            character_grams=features["character_grams"],
            threshold=int(manifest["threshold"]),
            kinds=kinds,
            columns=columns,
            weights=weights,
            cuts=cuts,
            kind_cuts=kind_cuts,
            kind_factor=float(manifest["kind_factor"]),
            curves=curves,
        )
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: not a quality model ({type(error).__name__}: {error})") from error
    check(parts, folder)
    return parts


def check(parts: Parts, folder: str) -> None:
    """An error where the parts do not fit each other: a manifest and weights of two models, a file written by something else."""
    rising = parts.columns.ndim == 1 and bool(np.all(parts.columns[1:] > parts.columns[:-1]))
    curves = len(parts.curves) == STEPS and all(
        one.method in ("isotonic", "platt", "constant") and len(one.probabilities) and np.isfinite(one.probabilities).all()
        for one in parts.curves
    )
    fits = (
        parts.columns.dtype == np.uint32
        and rising
        and (not len(parts.columns) or int(parts.columns[-1]) < 2**parts.bits)
        and parts.weights.dtype in (np.float16, np.float32)
        and len(parts.kinds) < grams.LANES
        and parts.weights.shape == (len(parts.columns), 1 + len(parts.kinds))
        and parts.cuts.shape == (STEPS,)
        and parts.kind_cuts.shape == (len(parts.kinds),)
        and 1 <= parts.threshold <= STEPS
        and all(bool(np.isfinite(one).all()) for one in (parts.weights, parts.cuts, parts.kind_cuts, np.array(parts.kind_factor)))
    )
    if not (fits and curves):
        raise InputError(f"{folder}: its manifest and its weights do not fit each other")
