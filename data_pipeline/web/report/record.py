"""report.json: every number of the report. Times stand in `times` alone; all else is the same for the same build and options."""

from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from data_pipeline.web.funnel import STEPS
from data_pipeline.web.report.clusters import Clusters
from data_pipeline.web.report.duplicates_of_whole import Multiplicities
from data_pipeline.web.report.forecast import forecast, sample_of
from data_pipeline.web.report.histograms import Histogram
from data_pipeline.web.report.options import ReportOptions
from data_pipeline.web.report.survey import TALLIED, Survey, reason_rows

SHOWN_GROUPS = 20  # languages, extractions, snapshots, ... that report.json names; the Parquet tables have all


def record_of(
    folder: Path, found: Survey, clusters: Clusters, drawn: list[Histogram], tokens: dict[str, Any], options: ReportOptions
) -> dict[str, Any]:
    """All but the times; `folder` is the build's."""
    total = {name: sum(found.outcomes[one][name] for one in ("kept", "held_out", "dropped")) for name in found.outcomes["kept"]}
    total = {name: count + found.removed.get(name, 0) for name, count in total.items()}
    reasons = reason_rows(found)
    return {
        "format": 1,
        "records": total["documents"],
        "total": total,
        "outcomes": found.outcomes,
        "tokens": tokens,
        "funnel": funnel_rows(total, reasons, found.outcomes["kept"], tokens),
        "funnel_note": funnel_note(folder, total["documents"], found.outcomes["kept"]["documents"]),
        "reasons": reasons,
        "measures": [
            {
                "name": one.name,
                **{key: value for key, value in one.quantiles.items()},
                "thresholds": [{"value": line.value, "side": line.side, "clean": line.clean} for line in one.thresholds],
            }
            for one in drawn
        ],
        "groups": {name: group_rows(found, name) for name in TALLIED if name in found.tallies and name not in ("file", "domain")},
        "files": found.tallies["file"].table().num_rows if "file" in found.tallies else None,
        "domains": domain_facts(found, options.domains),
        "second_opinions": found.second_opinions,
        "clusters": cluster_facts(clusters),
        "contamination": contamination_of(folder, found),
        "personal_data": found.personal or None,
        "not_measured": found.missing,
        "forecast": forecast_of(found, clusters, options, tokens["bytes_per_token"]),
        "options": options.model_dump(mode="json", exclude={"price_per_core_hour"}),
    }


def funnel_rows(total: dict[str, int], reasons: list[dict[str, Any]], kept: dict[str, int], tokens: dict[str, Any]) -> list[dict[str, Any]]:
    """What is left after each step; tokens by bytes per token, and as counted where there are shards of the kept pages."""
    names = ("documents", "html_bytes", "text_bytes", "words")
    left = {name: total[name] for name in names}
    rows = [{"step": "records", **left}]
    for step in STEPS:
        for row in reasons:
            if row["step"] == step:
                left = {name: left[name] - row[name] for name in names}
        rows.append({"step": step, **left})
    rows.append({"step": "kept for training", **{name: kept[name] for name in names}})
    for row in rows:
        row["tokens"] = round(row["text_bytes"] / tokens["bytes_per_token"])
        row["tokens_counted"] = False
    if tokens["measured"]:
        rows[-1] |= {"tokens": tokens["sources"]["web"], "tokens_counted": True}
    return rows


def funnel_note(folder: Path, records: int, kept: int) -> str:
    """A line where funnel.json tells of another build than the ledger; damaged files that it names."""
    try:
        told = read_json(folder / "funnel.json")
        steps, kept_told = told["steps"], told["kept"]["documents"]
    except (InputError, KeyError, TypeError):
        return "no funnel.json that can be read beside this ledger; the figures here are counted from the ledger"
    if (steps[0]["documents"], kept_told) != (records, kept):
        return (
            f"funnel.json tells of {steps[0]['documents']:,} records and {kept_told:,} kept: it is of another build; the ledger is believed"
        )
    broken = told.get("broken_files") or []
    return f"{len(broken):,} damages in the crawl's files, the first: {broken[0]}" if broken else ""


def group_rows(found: Survey, name: str) -> list[dict[str, Any]]:
    """The largest groups, the others together as the last row."""
    table = found.tallies[name].table()
    rows = table.slice(0, SHOWN_GROUPS).to_pylist()
    if table.num_rows > SHOWN_GROUPS:
        rest = {key: int(np.sum(table.column(key).slice(SHOWN_GROUPS).to_numpy())) for key in table.column_names[1:]}
        rows.append({name: f"{table.num_rows - SHOWN_GROUPS:,} others", **rest})
    return rows


def domain_facts(found: Survey, shown: int) -> dict[str, Any] | None:
    """The largest domains, and what share of all pages the first 10, 100 and 1,000 have."""
    if "domain" not in found.tallies:
        return None
    table = found.tallies["domain"].table()
    pages = table.column("documents").to_numpy()
    whole = max(int(pages.sum()), 1)
    return {
        "domains": table.num_rows,
        "shares": {str(count): round(float(pages[:count].sum()) / whole, 6) for count in (10, 100, 1000) if count < table.num_rows},
        "largest": table.slice(0, shown).to_pylist(),
    }


def cluster_facts(clusters: Clusters) -> dict[str, Any] | None:
    if not clusters.measured:
        return None
    return {
        "clusters": int(clusters.clusters.sum()),
        "pages": clusters.pages,
        "sizes": [
            {"pages": size, "clusters": count} for size, count in zip(clusters.sizes.tolist(), clusters.clusters.tolist(), strict=True)
        ],
        "largest": clusters.largest,
    }


def contamination_of(folder: Path, found: Survey) -> dict[str, Any] | None:
    """Per benchmark its items, how many the crawl holds, and the pages; from contamination.json where it is there, else from the ledger."""
    pages = dict(sorted(found.benchmarks.items()))
    try:
        told = read_json(folder / "contamination.json")
    except InputError:
        return (
            {"searched": False, "benchmarks": [{"task": task, "items": None, "dirty": None, "documents": pages[task]} for task in pages]}
            if pages
            else None
        )
    tasks = told.get("benchmarks", told) if isinstance(told, dict) else {}
    rows = [
        {
            "task": task,
            **{name: one.get(name) for name in ("items", "dirty", "unchecked")},
            "documents": one.get("documents", pages.get(task, 0)),
        }
        for task, one in sorted(tasks.items())
        if isinstance(one, dict) and "items" in one
    ]
    return {"searched": True, "benchmarks": rows}


def forecast_of(found: Survey, clusters: Clusters, options: ReportOptions, bytes_per_token: float) -> dict[str, Any] | None:
    """The whole crawl from this build as its sample. Without clusters in the ledger nothing is known of duplicates."""
    files = found.tallies["file"].table() if "file" in found.tallies else None
    domains = found.tallies["domain"].table() if "domain" in found.tallies else None
    sample = sample_of(files, domains, options.seed)
    alone = max(round(sample.total("passed")) - clusters.pages, 0) if clusters.measured else 0
    sizes = np.concatenate([[1], clusters.sizes]) if alone else clusters.sizes
    counts = np.concatenate([[alone], clusters.clusters]) if alone else clusters.clusters
    return forecast(sample, Multiplicities(sizes, counts), options, bytes_per_token)
