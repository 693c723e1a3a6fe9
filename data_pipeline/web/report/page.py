"""report.html: one page without scripts and without anything from outside, whatever the crawl's texts contain."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.web.report import svg
from data_pipeline.web.report.histograms import Histogram

TEMPLATE = Path(__file__).with_name("page.html")
# Shown first and larger; they are lengths rather than qualities.
LENGTHS = ("words", "text_bytes", "html_bytes")
SAID = {
    "kept_documents": "pages kept",
    "kept_text_bytes": "text kept",
    "kept_tokens": "tokens",
    "clean_tokens": "tokens of the clean subset",
    "documents_that_pass_the_rules": "pages that pass the rules, duplicates among them",
    "pages": "pages",
    "html_bytes": "HTML",
}


def page_of(
    record: dict[str, Any], times: dict[str, Any] | None, drawn: list[Histogram], samples: dict[str, Any], domains: np.ndarray | None
) -> str:
    """The page's source. Every text and address in it is escaped, and its policy lets no script run and nothing be loaded."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "count": count,
        "size": size,
        "percent": percent,
        "spaced": spaced,
        "short": svg.short,
        "plain": plain,
        "money": money,
    }
    plots = {one.name: svg.two_sided(one) for one in drawn}
    by_name = {one["name"]: one for one in record["measures"]}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        r=record,
        times=times,
        plots=plots,
        lengths=[by_name[name] for name in LENGTHS if name in by_name],
        measures=[one for one in record["measures"] if one["name"] not in LENGTHS],
        logarithmic={one.name for one in drawn if one.logarithmic},
        samples=samples,
        domain_plot=domain_plot(domains),
        cluster_plot=cluster_plot(record["clusters"]),
        growth_plot=growth(record["forecast"]),
        reasons=by_reason(record["reasons"]),
        groups={name: rows for name, rows in record["groups"].items() if told(name, rows)},
        said=SAID,
        unit=unit,
    )


def told(name: str, rows: Iterable[dict[str, Any]]) -> bool:
    """Whether a column says anything: some page has something in it."""
    return any(row[name] for row in rows)


def domain_plot(pages: np.ndarray | None) -> str:
    if pages is None or len(pages) < 3:
        return ""
    ranks, sizes = svg.thinned(np.arange(1, len(pages) + 1), pages)
    return svg.log_log(ranks, sizes, "domains, the largest first", "pages", line=True)


def cluster_plot(clusters: dict[str, Any] | None) -> str:
    if not clusters or not clusters["sizes"]:
        return ""
    return svg.log_log(*binned(clusters), "pages in a cluster", "clusters")


def binned(clusters: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes in steps of 2 %: the first of each step, and the clusters of the step."""
    sizes = np.array([one["pages"] for one in clusters["sizes"]])
    counts = np.array([one["clusters"] for one in clusters["sizes"]])
    steps = np.floor(np.log(sizes) / np.log(1.02)).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, steps[1:] != steps[:-1]])
    return sizes[starts], np.add.reduceat(counts, starts)


def growth(planned: dict[str, Any] | None) -> list[tuple[str, float]]:
    """The share of pages that stay at smaller samples, for the table."""
    found = (planned or {}).get("duplicates")
    return [(percent(one["rate"], 1), one["stay"]) for one in found["resampled"]] if found else []


def by_reason(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasons, the commonest first, each with its measures; of many measures (languages) the first six."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = found.setdefault(
            row["reason"], {"reason": row["reason"], "step": row["step"], "documents": 0, "text_bytes": 0, "measures": [], "more": 0}
        )
        entry["documents"] += row["documents"]
        entry["text_bytes"] += row["text_bytes"]
        if len(entry["measures"]) < 6:
            entry["measures"].append(row)
        else:
            entry["more"] += 1
    return sorted(found.values(), key=lambda one: (-one["documents"], one["reason"]))


def unit(name: str, value: float | None) -> str:
    """A figure of the forecast with its unit; no bound reads as unknown."""
    if value is None:
        return "unknown"
    return size(value) if name.endswith("bytes") else plain(value)


def count(value: float) -> str:
    return f"{value:,.0f}"


def plain(value: float) -> str:
    """A large number in words: 1.23 billion."""
    for scale, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {word}" if value / scale < 1000 else f"{value / scale:,.0f} {word}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for name, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {name}" if value / scale < 1000 else f"{value / scale:,.0f} {name}"
    return f"{value:.0f} bytes"


def percent(share: float, digits: int = 1) -> str:
    """A share; small ones keep a digit that says something."""
    return f"{100 * share:.{digits}f} %" if share >= 0.0005 or not share else f"{100 * share:.2g} %"


def money(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def spaced(name: str) -> str:
    return str(name).replace("_", " ")
