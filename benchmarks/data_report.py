"""The report of a large build, and how often its forecasts hold: python -m benchmarks.data_report [--rows 10000000]

A made ledger (`tests/data_pipeline/web/made_ledger.py`, no texts) is written by one process; then `write_report` and `explain` run in a
process of their own, whose peak memory and CPU seconds are measured. The coverage of the forecasts is counted on simulated crawls whose
truth is known: the intervals of ratios for files that differ little, much and very much, and the ranges of what duplicates leave for four
laws of cluster sizes. Writes benchmarks/results/data_report.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data_pipeline.provenance import peak_rss_bytes, provenance
from data_pipeline.storage import write_json

RESULTS = Path(__file__).parent / "results" / "data_report.json"


def measured(web: Path, out: Path) -> dict[str, Any]:
    """In a process of its own: a report, then three stories of pages far apart, CPU seconds and peak memory."""
    import pyarrow.parquet as pq

    from data_pipeline.run_folder import RunFolder
    from data_pipeline.web.explain import explain
    from data_pipeline.web.recipe import WebRecipe
    from data_pipeline.web.report import write_report

    before, wall, cpu = peak_rss_bytes(), time.perf_counter(), time.process_time()
    write_report(web, out)
    found: dict[str, Any] = {
        "rows": pq.ParquetFile(web / "ledger.parquet").metadata.num_rows,
        "ledger_bytes": (web / "ledger.parquet").stat().st_size,
        "report_seconds": round(time.perf_counter() - wall, 2),
        "report_cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_bytes_before": before,
        "page_bytes": (out / "report.html").stat().st_size,
    }
    with pq.ParquetFile(web / "ledger.parquet") as table:
        groups = [table.num_row_groups * part // 3 for part in range(3)]
        wanted = [table.read_row_group(group, ["id", "url"]).slice(0, 1).to_pylist()[0] for group in groups]
    wall = time.perf_counter()
    for row in wanted:
        explain(RunFolder(web.parent), WebRecipe(), row["id"])
        explain(RunFolder(web.parent), WebRecipe(), row["url"])
    found["explain_seconds"] = round((time.perf_counter() - wall) / 6, 3)
    return found


def coverage_of_intervals(repetitions: int) -> list[dict[str, Any]]:
    """How often the 95 % interval holds the truth: samples of n files of a crawl of 20,000, whose files differ by a lognormal factor."""
    from data_pipeline.web.report.forecast import ratio_interval

    rows = []
    for spread in (0.2, 0.5, 0.8):
        chance = np.random.default_rng(round(100 * spread))
        pages = chance.poisson(200 * np.exp(chance.normal(0, 0.3, 20_000))) + 1.0
        kept = pages * chance.beta(2, 3, len(pages)) * np.exp(chance.normal(8, spread, len(pages)))
        truth = kept.sum() / pages.sum()
        for files in (8, 20, 60):
            held, widths = 0, []
            for number in range(repetitions):
                chosen = chance.choice(len(pages), files, replace=False)
                _, low, high = ratio_interval(kept[chosen], pages[chosen], files / len(pages), 1000, number)
                held += low <= truth <= high
                widths.append((high - low) / truth)
            width = round(float(np.median(widths)), 3)
            rows.append(
                {"files": files, "spread": spread, "repetitions": repetitions, "held": round(held / repetitions, 4), "width": width}
            )
    return rows


def coverage_of_ranges(repetitions: int) -> list[dict[str, Any]]:
    """How often the range of what duplicates leave holds the truth, and how wide it is: crawls of two million pages."""
    from data_pipeline.web.report.duplicates_of_whole import Multiplicities, whole_crawl

    chance = np.random.default_rng(9)
    pages = 2_000_000
    laws = {
        "no copies": lambda: np.ones(pages, np.int64),
        "ten of each": lambda: np.full(pages // 10, 10),
        "3 in 100 with up to 400": lambda: np.where(chance.random(pages) < 0.97, 1, chance.integers(2, 400, pages)),
        "power law": lambda: np.minimum(np.floor(chance.pareto(1.3, pages) + 1), pages // 20).astype(np.int64),
    }
    rows = []
    for law, draw in laws.items():
        for share in (0.001, 0.01, 0.1):
            held, told = 0, []
            for _ in range(repetitions):
                sizes = draw()
                sizes = sizes[: np.searchsorted(np.cumsum(sizes), pages) + 1]
                truth = len(sizes) / sizes.sum()
                counts = chance.binomial(sizes, share)
                found = whole_crawl(Multiplicities(*np.unique(counts[counts > 0], return_counts=True)), share)
                assert found is not None
                held += found["low"] <= truth <= found["high"]
                told.append([truth, found["sample"], found["low"], found["high"]])
            middle = dict(zip(("truth", "sample", "low", "high"), np.round(np.median(told, axis=0), 4).tolist(), strict=True))
            rows.append({"law": law, "sample_share": share, "repetitions": repetitions, "held": round(held / repetitions, 4), **middle})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=1000, help="of the intervals' coverage; a tenth of it for the ranges'")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        web = Path(arguments.measure)
        print(json.dumps(measured(web, web.parent / "data_report")))
        return
    from tests.data_pipeline.web.made_ledger import make_web_folder

    with tempfile.TemporaryDirectory() as folder:
        web = Path(folder) / "web"
        make_web_folder(web, rows=arguments.rows, files=max(arguments.rows // 30_000, 1), texts=False)
        command = [sys.executable, "-m", "benchmarks.data_report", "--measure", str(web)]
        told = subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=True)
    result = {
        **provenance("numpy", "pyarrow", "scipy"),
        "made": "simulated: a ledger of numbers without texts, crawls whose truth is known",
        "report": json.loads(told.stdout),
        "intervals": coverage_of_intervals(arguments.repetitions),
        "ranges": coverage_of_ranges(max(arguments.repetitions // 10, 1)),
    }
    write_json(RESULTS, result)
    print(json.dumps({name: result[name] for name in ("report", "intervals", "ranges")}, indent=1))


if __name__ == "__main__":
    main()
