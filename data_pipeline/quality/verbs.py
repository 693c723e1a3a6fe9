"""What `phial data quality ...` does and prints."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.quality.labels import in_batches, read_texts
from data_pipeline.recipe import AnySection, Recipe, describe

SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("score", pa.float32()),
        ("probability", pa.float32()),
        ("kind", pa.string()),
        ("kind_probability", pa.float32()),
    ]
)


def settings_of(model: type[AnySection], given: dict[str, Any], overrides: list[str]) -> AnySection:
    """Settings from options and `--set name=value`, checked; what is wrong is one line."""
    from pydantic import ValidationError

    table = {name: value for name, value in given.items() if value is not None}
    for text in overrides:
        table |= one_setting(text)
    try:
        return model(**table)
    except ValidationError as error:
        raise InputError(f"--set: {describe('quality', model, error.errors()[0])}") from error


def one_setting(text: str) -> dict[str, Any]:
    """`name=value` as a table, its value read as TOML where that can be."""
    recipe = Recipe({}, "--set")
    if "." in text.partition("=")[0]:
        raise InputError(f"--set {text}: name=value is needed, for example --set bits=18")
    recipe.override(f"run.{text}")
    return recipe.tables["run"]


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on the error stream; silent where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def label_verb(
    documents: str, out: str, given: dict[str, Any], endpoint: dict[str, Any], cache: str | None, first: str | None, as_json: bool
) -> None:
    """Asks the teacher and prints what came."""
    from data_pipeline.quality.endpoint import Endpoint
    from data_pipeline.quality.labelling import LabellingSettings, label

    settings = settings_of(LabellingSettings, given, [])
    variable = endpoint.pop("variable")
    key = os.environ.get(variable, "") if variable else ""
    if variable and not key:
        raise InputError(f"--key-variable {variable}: no such environment variable, or it is empty")
    teacher = Endpoint(key=key, **endpoint)
    model = None
    if first:
        from data_pipeline.quality.model import QualityModel

        model = QualityModel.load(first)
    with bar("asking") as progress:
        report = label(documents, settings, teacher, out, cache or f"{out}.answers.jsonl", model, progress)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    print(f"{out}: {report['labelled']:,} labels of {report['documents']:,} documents; {report['answers_paid_now']:,} answers paid for now")
    print("scores: " + ", ".join(f"{count:,} x {score}" for score, count in report["scores"].items()))
    if report["failed"]:
        print(f"{report['failed']:,} documents without a verdict, for example {next(iter(report['failures'].items()))}")
    agreement = report["agreement"]
    if agreement["documents"]:
        print(
            f"asked twice: {agreement['documents']:,}; same score {agreement['equal_scores']:.2f}, kappa {agreement['kappa']:.2f} "
            f"(weighted {agreement['weighted_kappa']:.2f}), Spearman {agreement['spearman']:.2f}"
        )


def train_verb(labels: str, documents: str | None, out: str, overrides: list[str], as_json: bool) -> None:
    """Trains and prints the test sites' metrics."""
    from data_pipeline.quality.model import MODEL_FILES
    from data_pipeline.quality.recipe import TrainingSettings
    from data_pipeline.quality.training import train

    settings = settings_of(TrainingSettings, {}, overrides)
    storage.refuse_foreign(Path(out), MODEL_FILES, "a quality model")
    with Console(stderr=True).status("training") as status:
        manifest = train(settings, labels, documents, out, status.update)
    if as_json:
        print(json.dumps({"model": out, **{name: manifest[name] for name in ("labels", "thresholds", "metrics", "search")}}))
        return
    sides = manifest["labels"]["sides"]
    print(f"{out}: " + ", ".join(f"{side} {one['documents']:,} documents of {one['sites']:,} sites" for side, one in sides.items()))
    if manifest["labels"]["without_document"]:
        print(f"{manifest['labels']['without_document']:,} labels have no document and were left out")
    test = manifest["metrics"]["test"]
    at = test["at_min_score"]
    print(
        f"test sites, score >= {manifest['thresholds']['min_score']:g}: precision {at['precision']:.3f}, recall {at['recall']:.3f}, "
        f"F1 {at['f1']:.3f}; calibration error {test['expected_calibration_error']:.3f}, Brier {test['brier']:.3f}"
    )
    if "kinds" in test:
        print(f"kinds: {test['kinds']['accuracy']:.3f} right, mean F1 {test['kinds']['mean_f1']:.3f}")
    slow = [one["penalty"] for search in manifest["search"].values() for one in search.get("tried", []) if not one["converged"]]
    if slow:
        print(f"not converged within {settings.max_iterations} iterations: penalty {', '.join(f'{one:g}' for one in sorted(set(slow)))}")


def score_verb(documents: str, model: str, out: str, as_json: bool) -> None:
    """Scores every document into a Parquet or JSON-lines file."""
    from data_pipeline.quality.model import QualityModel

    scorer = QualityModel.load(model)
    if not out.endswith((".parquet", ".jsonl")):
        raise InputError(f"--out {out}: a name that ends in .parquet or .jsonl is needed")
    if Path(out).resolve() in [Path(one).resolve() for one in storage.expand(documents)]:
        raise InputError(f"--out {out}: the documents themselves, which the scores would replace; give another name")
    total, kept = 0, 0
    with storage.atomic_write(out) as stream, table_writer(stream, out) as writer, bar("scoring") as progress:
        for batch in in_batches(read_texts(documents), 2_000):
            scores = scorer.score_many([one.text for one in batch])
            rows = [
                {
                    "id": one.id,
                    "url": one.url,
                    "score": score.value,
                    "probability": score.probability,
                    "kind": score.kind,
                    "kind_probability": score.kind_probability,
                }
                for one, score in zip(batch, scores, strict=True)
            ]
            if writer:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SCORES))
            else:
                stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            total += len(rows)
            kept += sum(score.value >= scorer.min_score for score in scores)
            progress(total, None)
    record = {"out": out, "documents": total, "min_score": scorer.min_score, "at_or_above": kept, "model": scorer.fingerprint}
    print(json.dumps(record) if as_json else f"{out}: {total:,} documents, {kept:,} with a score of {scorer.min_score:g} or more")


def table_writer(stream: IO[bytes], out: str) -> AbstractContextManager[pq.ParquetWriter | None]:
    """What writes Parquet, closed at the end of its block, or None where JSON lines are asked for."""
    return pq.ParquetWriter(stream, SCORES, compression="zstd") if out.endswith(".parquet") else nullcontext()


def audit_verb(model: str, documents: str, labels: str, out: str, every_site: bool, as_json: bool) -> None:
    """Writes the audit and prints its main figures."""
    from data_pipeline.quality.audit import audit

    with Console(stderr=True).status("auditing"):
        record = audit(model, documents, labels, out, every_site)
    at, measured = record["metrics"]["at_min_score"], record["documents"]["measured"]
    if as_json:
        print(json.dumps({"out": out, "documents": record["documents"], "metrics": record["metrics"]}))
        return
    print(
        f"{out}/audit.html: {measured:,} labelled documents of sites that training did not have" if not every_site else f"{out}/audit.html"
    )
    print(f"precision {at['precision']:.3f}, recall {at['recall']:.3f}, F1 {at['f1']:.3f}; {record['histogram']['kept']:,} of all kept")


def generate_verb(out: str, pages: int, sites: int, seed: int, noise: float) -> None:
    """Writes generated pages with labels."""
    import dataclasses

    from data_pipeline.quality.generated_pages import generated_pages
    from data_pipeline.records import write_documents

    labels: list[dict[str, Any]] = []

    def documents() -> Iterator[Any]:
        for document, label in generated_pages(pages, sites, seed, noise):
            labels.append({name: value for name, value in dataclasses.asdict(label).items() if name in ("id", "score", "kind")})
            yield document

    count = write_documents(f"{out}/documents.parquet", documents())
    storage.write_json_lines(f"{out}/labels.jsonl", labels)
    print(f"{out}: {count:,} generated pages of {sites:,} sites in documents.parquet, their labels in labels.jsonl")
