"""A build's folder to its report: report.html, report.json and Parquet tables."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.web.build_settings import settings_of
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.report.clusters import Clusters, clusters_of
from data_pipeline.web.report.histograms import histogram_rows, histograms
from data_pipeline.web.report.ledger_table import Ledger
from data_pipeline.web.report.options import ReportOptions
from data_pipeline.web.report.page import page_of
from data_pipeline.web.report.record import record_of
from data_pipeline.web.report.samples import random_pages
from data_pipeline.web.report.survey import Survey, survey
from data_pipeline.web.report.times import times_of
from data_pipeline.web.report.tokens import tokens_of
from data_pipeline.web.tables import LEDGER

REPORT = "report.json"
TABLES = ("files", "domains", "languages")  # of what is tallied, those that are written whole
BARS = pa.schema(
    [("measure", pa.string()), ("low", pa.float64()), ("high", pa.float64())]
    + [(name, pa.int64()) for name in ("kept", "dropped_by_it", "dropped")]
)
FUNNEL = pa.schema(
    [("step", pa.string())]
    + [(name, pa.int64()) for name in ("documents", "html_bytes", "text_bytes", "words", "tokens")]
    + [("tokens_counted", pa.bool_())]
)
REASONS = pa.schema(
    [(name, pa.string()) for name in ("reason", "measure", "step")]
    + [(name, pa.int64()) for name in ("documents", "html_bytes", "text_bytes", "words")]
    + [(name, pa.float64()) for name in ("threshold", "last_threshold", "value_p05", "value_p50", "value_p95")]
)
OWN_FILES = {"report.html", REPORT} | {f"{name}.parquet" for name in ("funnel", "reasons", "measures", "clusters", *TABLES)}
CLUSTERS = pa.schema([("pages", pa.int64()), ("clusters", pa.int64())])


def write_report(web_folder: Path, out: Path, options: ReportOptions | None = None, run: Path | None = None) -> dict[str, Any]:
    """Reads a build's folder and writes the folder `out` whole; returns what report.json holds.

    `run` (the folder above by default) has tokens/, and recipe.toml, whose thresholds are drawn where the build does not tell its own. What
    a build of another version did not measure is named and left out. The same build and options give the same bytes but for `times` in
    report.json and the page's section of that name. Raises InputError where there is no ledger, or where `out` holds something that is no
    report.
    """
    options = options or ReportOptions()
    run = run or Path(web_folder).parent
    storage.refuse_foreign(out, OWN_FILES, "a report")
    with Ledger(web_folder / "ledger.parquet") as ledger:
        found = survey(ledger, LEDGER.names)
        clusters = clusters_of(ledger)
    check_size(options, found)
    recipe, note = recipe_of(Path(web_folder), run)
    drawn = histograms(found, recipe)
    tokens = tokens_of(run / "tokens", web_folder / "kept.parquet", found.outcomes, options.bytes_per_token)
    record = record_of(web_folder, found, clusters, drawn, tokens, options)
    record["recipe_note"] = note
    times = times_of(web_folder, record["records"], record["total"]["html_bytes"], record["forecast"], options)
    shown = {
        "kept": random_pages(web_folder / "kept.parquet", None, options.samples, options.sample_characters, options.seed).get("", []),
        "dropped": random_pages(web_folder / "dropped.parquet", "reason", options.samples, options.sample_characters, options.seed),
    }
    with storage.atomic_folder(out) as folder:
        write_tables(folder, record, found, clusters, histogram_rows(drawn))
        with storage.atomic_write(folder / "report.html", "w") as stream:
            stream.write(page_of(record, times, drawn, shown, domain_pages(found)))
        storage.write_json(folder / REPORT, record | {"times": times})
    return record | {"times": times}


def check_size(options: ReportOptions, found: Survey) -> None:
    """A whole crawl that is smaller than its sample is a slip of the hand."""
    for name, asked, unit in (("--crawl-pages", options.crawl_pages, "documents"), ("--crawl-bytes", options.crawl_bytes, "html_bytes")):
        here = sum(found.outcomes[outcome][unit] for outcome in ("kept", "held_out", "dropped"))
        if asked is not None and asked < here:
            raise InputError(f"{name} {asked}: the whole crawl is said to be smaller than this build, which has {here:,}")


def recipe_of(web_folder: Path, run: Path) -> tuple[WebRecipe | None, str]:
    """The [web] settings that the build was made with, and a line where there are none."""
    try:
        found = settings_of(web_folder, run / "recipe.toml")
    except InputError as error:
        return None, f"the settings are of another version ({str(error).removeprefix(f'{run}/')}): thresholds are those that dropped pages"
    return found, "" if found else "no recipe.toml beside the build: thresholds are those that dropped pages"


def domain_pages(found: Survey) -> Any:
    """Pages per domain, the largest first: int64 [domains]; None where domains were not told apart."""
    return found.tallies["domain"].table().column("documents").to_numpy() if "domain" in found.tallies else None


def write_tables(folder: Path, record: dict[str, Any], found: Survey, clusters: Clusters, bars: list[dict[str, Any]]) -> None:
    """The Parquet tables: the same numbers whole, where the page shows the largest."""
    tables = {
        "funnel": pa.Table.from_pylist(record["funnel"], FUNNEL),
        "reasons": pa.Table.from_pylist(record["reasons"], REASONS),
        "measures": pa.Table.from_pylist(bars, BARS),
        "clusters": pa.table({"pages": clusters.sizes, "clusters": clusters.clusters}, CLUSTERS),
        **{f"{name}s": tally.table() for name, tally in found.tallies.items() if f"{name}s" in TABLES},
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
