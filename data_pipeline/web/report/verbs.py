"""What `phial data report` prints."""

import json
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.web.report.options import ReportOptions
from data_pipeline.web.report.page import SAID, count, money, percent, plain, unit
from data_pipeline.web.report.write import write_report

SIZES = {"crawl_pages", "crawl_bytes", "sample_share"}


def report_verb(folder: str, out: str | None, options: dict[str, Any], as_json: bool) -> None:
    """Writes the report of a run, or of its web folder, and says the most of it in a few lines."""
    web, run = places(Path(folder))
    target = Path(out) if out else RunFolder(run).data_report
    record = write_report(web, target, checked(run, options), run)
    if as_json:
        print(json.dumps(record))
        return
    kept, last = record["outcomes"]["kept"], record["funnel"][-1]
    share = percent(kept["documents"] / max(record["records"], 1))
    tokens = f"{plain(last['tokens'])} tokens {'counted' if last['tokens_counted'] else 'estimated'}"
    print(f"{target / 'report.html'}: {count(record['records'])} records, {count(kept['documents'])} kept ({share}), {tokens}")
    for row in record["reasons"][:3]:
        print(f"dropped: {row['reason']} by {row['measure']}, {count(row['documents'])}")
    for line in told_of_crawl(record):
        print(line)
    if record["not_measured"]:
        print(f"not measured in this build: {', '.join(record['not_measured'])}")


def told_of_crawl(record: dict[str, Any]) -> list[str]:
    """The forecast in lines."""
    planned, lines = record["forecast"], []
    if planned is None:
        return lines
    assumed = ", assumed" if planned["assumed"] else ""
    lines.append(
        f"forecast for {plain(planned['whole_pages'])} pages (this build is {percent(planned['sample_share'], 2)} of them{assumed}):"
    )
    for name in ("kept_tokens", "clean_tokens"):
        one = planned["figures"][name]
        low, high = (unit(name, one[key]) for key in ("corrected_low", "corrected_high"))
        lines.append(f"  {SAID[name]}: {unit(name, one['value'])} in proportion; {low} to {high} with the duplicates of the whole, 95 %")
    crawl = (record["times"] or {}).get("crawl")
    if crawl:
        price = f", {money(crawl['cost'])} at {crawl['price_per_core_hour']:g} each" if crawl["price_per_core_hour"] else ""
        lines.append(f"  {plain(crawl['core_hours'])} core hours{price}")
    return lines


def places(folder: Path) -> tuple[Path, Path]:
    """(the build's folder, the run's) of either."""
    if (folder / "web").is_dir():
        return folder / "web", folder
    if (folder / "ledger.parquet").exists():
        return folder, folder.parent
    raise InputError(f"{folder}: neither a run with web/ nor a folder with ledger.parquet; `phial data build` writes both")


def checked(run: Path, options: dict[str, Any]) -> ReportOptions:
    """The run's [report] with the options that were given; one that cannot be is an error of one line."""
    from pydantic import ValidationError

    given = {name: value for name, value in options.items() if value is not None}
    recipe = RunFolder(run).recipe
    kept = Recipe.load(recipe).section("report", ReportOptions).model_dump(exclude_unset=True) if recipe.exists() else {}
    if SIZES & given.keys():  # another size of the whole crawl takes the recipe's place
        kept = {name: value for name, value in kept.items() if name not in SIZES}
    try:
        return ReportOptions(**kept | given)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: " if first["loc"] else ""
        raise InputError(f"{name}{first['msg'].removeprefix('Value error, ')}") from error
