"""Cost and throughput: the part of a report that differs between two runs of one build."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from data_pipeline.web.report.options import ReportOptions

ENOUGH = 0.1  # of the pages, or the start of a run that only went on costs more than its pages did


def times_of(folder: Path, records: int, html_bytes: int, planned: dict[str, Any] | None, options: ReportOptions) -> dict[str, Any] | None:
    """What each stage took, per page too, and what the whole crawl would take; None where the build says nothing of it.

    A stage that went over pages of an earlier, killed run counts its own pages alone. The whole crawl's CPU time is taken to go with its
    bytes of HTML, so its interval is that of those bytes.
    """
    try:
        speed = read_json(folder / "speed.json")
    except InputError:
        return None
    stages = [stage_of(stage, speed, records, html_bytes) for stage in speed.get("stages") or speed.get("steps") or []]
    told = {
        name: speed[name]
        for name in ("seconds", "cpu_seconds", "workers", "measured_by", "pages_per_second")
        if speed.get(name) is not None
    }
    per_page = [stage["cpu_seconds_per_page"] for stage in stages]
    found: dict[str, Any] = {**told, "stages": stages, "crawl": None}
    if planned and per_page and all(one is not None for one in per_page):
        figures = planned["figures"]
        seconds = sum(per_page) * figures["pages"]["value"]
        spread = [
            figures["html_bytes"][key] / figures["html_bytes"]["value"] if figures["html_bytes"][key] else None for key in ("low", "high")
        ]
        hours = seconds / 3600
        found["crawl"] = {
            "kind": "forecast",
            "core_hours": hours,
            "core_hours_low": hours * spread[0] if spread[0] else None,
            "core_hours_high": hours * spread[1] if spread[1] else None,
            "price_per_core_hour": options.price_per_core_hour,
            "cost": hours * options.price_per_core_hour,
        }
    return found


def stage_of(stage: dict[str, Any], speed: dict[str, Any], records: int, html_bytes: int) -> dict[str, Any]:
    """One stage: seconds, CPU seconds, pages and bytes, and what a page took; None where this run did not do it."""
    name, cpu = stage.get("name", ""), stage.get("cpu_seconds")
    measuring = name == "measure"
    pages = stage.get("documents", speed.get("pages_measured", records) if measuring else records)
    if measuring and speed.get("costs"):  # tasks on other machines are in the journal's sum and not in this process's
        cpu = max(cpu or 0.0, speed["costs"].get("cpu_seconds", 0.0))
    size = stage.get("bytes", html_bytes * pages / records if records else 0)
    seconds = stage.get("seconds")
    return {
        "name": name,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "pages": pages,
        "bytes": round(size),
        "cpu_seconds_per_page": cpu / pages if cpu is not None and pages and pages >= ENOUGH * records else None,
        "pages_per_second": pages / seconds if seconds and pages else None,
        "megabytes_per_cpu_second": size / 1e6 / cpu if cpu and pages else None,
    }
