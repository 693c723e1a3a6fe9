"""What `phial data collect`, `build`, `explain` and `extract` print."""

import json
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder
from data_pipeline.web.recipe import CollectRecipe, WebRecipe

if TYPE_CHECKING:
    from data_pipeline.web.build import Workers
    from data_pipeline.web.report import ReportOptions


def collect_verb(folder: str, warc: list[str], prefix: str | None, recipe: str | None, overrides: list[str], as_json: bool) -> None:
    """Collects and prints what was."""
    from data_pipeline.web.collect import collect

    loaded = Recipe.load(recipe, overrides) if recipe else Recipe({}, "--set")
    if not recipe:
        for override in overrides:
            loaded.override(override)
    if "" in warc:
        raise InputError("--warc is empty; give a path, URL or glob, or leave --warc out for the standard library's pages")
    if warc:
        loaded.tables.setdefault("collect", {})["warc"] = warc
    if prefix is not None:
        loaded.tables.setdefault("collect", {})["prefix"] = prefix
    settings = loaded.section("collect", CollectRecipe)
    with progress_bar() as bar:
        task = bar.add_task("collecting", total=None)
        record = collect(
            settings, Path(folder), loaded.section("run", RunRecipe).seed, lambda done, of: bar.update(task, completed=done, total=of)
        )
    if as_json:
        print(json.dumps(record, ensure_ascii=False))
        return
    if settings.warc:
        print(f"{folder}: {len(record['sources'])} WARC file(s) named in {folder}/sources.json, read in place")
        for path in record["files_without_pages"]:
            print(f"  no web page in {path}")
        return
    made = ", ".join(f"{count} {kind}" for kind, count in record["generated_pages"].items())
    print(
        f"{folder}: {record['library_pages']} pages of the standard library, {record['html_bytes'] / 1e6:.1f} MB of HTML in pages.warc.gz"
    )
    if made:
        print(f"  generated pages, verdicts in truth.jsonl: {made}")
    if record["modules_without_page"]:
        print(f"  modules that could not be rendered here: {', '.join(record['modules_without_page'])}")


def build_verb(
    settings: WebRecipe, run: RunFolder, seed: int, report: "ReportOptions", workers: str | None, journal: str, as_json: bool
) -> None:
    """Builds, writes the report, and prints the funnel."""
    from data_pipeline.web.build import build
    from data_pipeline.web.report import write_report

    chosen = who_measures(workers, journal)
    with progress_bar() as bar:
        task = bar.add_task("filtering", total=None)
        funnel = build(settings, run.crawl, run.web, seed, lambda pages: bar.update(task, completed=pages), chosen)
    write_report(run.web, run.data_report, report)
    for line in funnel["broken_files"]:
        print(f"phial: {line}; its good records were read", file=sys.stderr)
    if as_json:
        print(json.dumps(funnel, ensure_ascii=False))
        return
    show(funnel, run, settings)


def who_measures(workers: str | None, journal: str) -> "Workers":
    """`--workers` and `--journal` as the build takes them."""
    from data_pipeline.web.build import Workers

    if workers is None:
        return Workers(1 if journal else None, journal)
    if workers == "ray":
        return Workers("ray", journal)
    if not workers.isdecimal() or int(workers) > 1024:
        raise InputError(f"--workers {workers}: a number of processes (0 to 1,024) or ray is needed")
    if workers == "0" and not journal:
        raise InputError(
            "--workers 0 leaves the files to `phial worker --journal URL`, so it needs --journal, which those workers reach too"
        )
    return Workers(int(workers), journal)


def show(funnel: dict[str, Any], run: RunFolder, settings: WebRecipe) -> None:
    """The funnel as two tables and a few lines."""
    console = Console()
    steps = Table("step", *(["documents", "words", "MB of text"]), title=f"{run.web}", title_justify="left")
    for one in funnel["steps"]:
        steps.add_row(one["step"], f"{one['documents']:,}", f"{one['words']:,}", f"{one['text_bytes'] / 1e6:.2f}")
    console.print(steps)
    reasons = Table("dropped because", "documents", "measured by", "for example")
    for reason, one in funnel["dropped"].items():
        measures = ", ".join(f"{name} {count}" for name, count in one["measures"].items())
        example = f"{one['samples'][0]['url']} ({one['samples'][0]['value']:.3g})" if one["samples"] else ""
        reasons.add_row(reason, f"{one['documents']:,}", measures, example)
    console.print(reasons)
    masked = ", ".join(f"{count} {kind}" for kind, count in funnel["personal_data"].items() if count)
    speed = funnel["speed"]
    print(f"clean subset: {funnel['clean']['documents']:,} pages; held out: {funnel['held_out']['documents']:,} pages")
    print(f"personal data masked in what was kept: {masked or 'none'}" if settings.mask_personal_data else "personal data was not masked")
    kept = funnel["steps"][0]["documents"] - speed["pages_measured"]
    measured = f"{speed['pages_measured']:,} pages measured" + (f", {kept:,} kept from an earlier run" if kept else "")
    by = f"{speed['workers']} workers" if speed["workers"] else "the workers of its journal"
    print(f"{speed['seconds']:.1f} s with {by}; {measured}, {speed['pages_per_second']:.0f} pages/s")
    print(f"report: {run.data_report / 'report.html'}")
    if not settings.c4_braces:
        print("C4's brace rule is off: pages with braces count as text")
    if not funnel["kept"]["documents"]:
        print("nothing was kept; dropped.parquet has each page's reason, measured value and threshold")


def explain_verb(folder: str, page: str, token: str, as_json: bool) -> None:
    """Tells a page's story."""
    from data_pipeline.web.build_settings import settings_of
    from data_pipeline.web.explain import explain, page_of_token, story

    run = RunFolder(Path(folder))
    if bool(page) == bool(token):
        raise InputError("phial data explain OUT PAGE, or OUT --token SOURCE:NUMBER: one of the two is needed")
    if token:
        source, _, number = token.partition(":")
        if not number.isdecimal():
            raise InputError(f"--token {token}: SOURCE:NUMBER is needed, for example web:1000")
        page = page_of_token(run, source, int(number))
    found = explain(run, settings_of(run.web, run.recipe) or WebRecipe(), page)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for line in story(found):
        print(line)


def extract_verb(files: list[str], url: str | None, as_json: bool) -> None:
    """Extracts each file and prints its text, or one JSON object per line."""
    pages = [(file, page_bytes(file)) for file in files]  # a missing file is named before anything is printed
    for file, html in pages:
        row = extract_row(file, html, url)
        if as_json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif row["dropped"]:
            print(f"phial: {file}: {row['dropped']}", file=sys.stderr)
        else:
            print(f"== {file}\n{row['text']}\n" if len(pages) > 1 else row["text"])


def extract_row(file: str, html: bytes, url: str | None) -> dict[str, Any]:
    """One file's text and language; `dropped` is why there is no text, else None."""
    from data_pipeline.web.extract import extract_page
    from data_pipeline.web.language import language_of

    started = time.perf_counter()
    extraction = extract_page(html, url=url)
    language = language_of(extraction.text)[0] if extraction.text else ""
    dropped = None if extraction.text else "no_text"
    how = {"method": extraction.method, "why": extraction.why}
    return {
        "file": file,
        "text": extraction.text,
        "language": language,
        "dropped": dropped,
        "seconds": time.perf_counter() - started,
        **how,
    }


def page_bytes(file: str) -> bytes:
    """A page's bytes, unpacked where they are gzip."""
    storage.expand(file)  # names a missing file
    with storage.open_read(file) as stream:
        data = stream.read()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        unpacked = zlib.decompressobj(wbits=31)
        return unpacked.decompress(data) + unpacked.flush()
    except zlib.error as error:
        raise InputError(f"{file}: damaged gzip data ({error})") from error


def progress_bar() -> Progress:
    """A spinner with a count on the error stream; silent where that is no terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,.0f} pages"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
