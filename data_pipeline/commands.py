"""The verbs `phial data ...`, `phial tokenizer ...` and `phial worker`."""

import json
import os
import sys
from typing import TYPE_CHECKING

import typer

from data_pipeline.quality.commands import quality
from data_pipeline.recipe import AnySection, Recipe, RunRecipe
from data_pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.status import Status

data = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
tokenizer = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

data.add_typer(quality, name="quality")

RECIPE = typer.Argument(metavar="RECIPE", help="A TOML file, or the name of one in recipes/.")
OUT = typer.Option(None, "--out", help="The run folder; else the recipe's [run] folder.")
SET = typer.Option(None, "--set", help="Override one setting: section.key=value. May be given again.")


def open_run(
    recipe: str, section: str, model: type[AnySection], out: str | None, overrides: list[str] | None
) -> tuple[AnySection, RunFolder]:
    """The settings of a verb and its run folder, in which the resolved recipe is then written."""
    loaded = Recipe.load(recipe, overrides)
    settings = loaded.section(section, model)
    run = RunFolder.open(out or loaded.section("run", RunRecipe).folder)
    loaded.save(run.recipe)
    return settings, run


def working(what: str) -> "Status":
    """A spinner on the terminal's error stream; silent where that is no terminal."""
    from rich.console import Console

    return Console(stderr=True).status(what)


@data.callback()
def data_verbs() -> None:
    """Web pages and synthetic text: collect, build, report, explain, synthesize, extract, tokenize."""


@data.command("collect")
def data_collect(
    folder: str = typer.Argument(metavar="OUT", help="The crawl folder to write, for example runs/demo/crawl."),
    warc: list[str] | None = typer.Option(
        None, "--warc", help="Files of web data or lists of them (*.paths[.gz]): a path, URL (http, s3) or glob; may be repeated."
    ),
    prefix: str | None = typer.Option(None, "--prefix", help="What relative lines of a list are below; otherwise its own host or folder."),
    recipe: str | None = typer.Option(None, "--recipe", help="A recipe whose [collect] and [run] sections are used."),
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the record as one JSON object."),
) -> None:
    """Raw pages into a crawl folder: your own files, or the standard library's pages with known bad ones mixed in."""
    from data_pipeline.web.verbs import collect_verb

    collect_verb(folder, warc or [], prefix, recipe, overrides or [], as_json)


@data.command("build")
def data_build(
    recipe: str = RECIPE,
    out: str | None = OUT,
    overrides: list[str] | None = SET,
    workers: str | None = typer.Option(
        None,
        "--workers",
        help="Files as tasks side by side: a number of local processes, ray, or 0 to leave them to `phial worker`; without it, "
        "pages side by side on [web] workers.",
    ),
    journal: str = typer.Option("", "--journal", help="Where tasks and measured pages are kept, on any store that the workers reach."),
    as_json: bool = typer.Option(False, "--json", help="Print the funnel as one JSON object."),
) -> None:
    """Filter the run's crawl: extraction, language, quality rules, personal data, duplicates; writes web/ and a report.

    Run it again to go on.
    """
    from data_pipeline.web.recipe import WebRecipe
    from data_pipeline.web.report import ReportOptions
    from data_pipeline.web.verbs import build_verb

    settings, run = open_run(recipe, "web", WebRecipe, out, overrides)
    loaded = Recipe.load(recipe, overrides)
    report = loaded.section("report", ReportOptions)
    build_verb(settings, run, loaded.section("run", RunRecipe).seed, report, workers, journal, as_json)


@data.command("report")
def data_report(
    folder: str = typer.Argument(metavar="RUN", help="The run folder, for example runs/demo, or its web folder."),
    out: str | None = typer.Option(None, "--out", help="The folder to write, replaced whole; else RUN/data_report."),
    crawl_pages: int | None = typer.Option(None, "--crawl-pages", help="Forecast for a whole crawl of so many pages."),
    crawl_bytes: int | None = typer.Option(None, "--crawl-bytes", help="Or of so many bytes of pages, unpacked."),
    sample_share: float | None = typer.Option(None, "--sample-share", help="Or of which this build is that share; 0.001 is assumed."),
    price: float | None = typer.Option(None, "--price-per-core-hour", help="Of one core, in any currency, for the forecast of cost."),
    samples: int | None = typer.Option(None, "--samples", help="Random pages shown per reason; 10."),
    seed: int | None = typer.Option(None, "--seed", help="Of the pages shown and of the resampling; 0."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json."),
) -> None:
    """A build on one page: funnel, reasons, values beside thresholds, duplicates, random pages, cost, and a forecast for the crawl."""
    from data_pipeline.web.report.verbs import report_verb

    sizes = {"crawl_pages": crawl_pages, "crawl_bytes": crawl_bytes, "sample_share": sample_share}
    report_verb(folder, out, {**sizes, "price_per_core_hour": price, "samples": samples, "seed": seed}, as_json)


@data.command("explain")
def data_explain(
    folder: str = typer.Argument(metavar="OUT", help="The run folder, for example runs/demo."),
    page: str = typer.Argument("", metavar="[PAGE]", help="The page's id or address, as kept.parquet and dropped.parquet have them."),
    token: str = typer.Option("", "--token", help="Instead of a page: the page that a token came from, for example web:1000."),
    as_json: bool = typer.Option(False, "--json", help="Print the story as one JSON object."),
) -> None:
    """A page's whole story: where it came from, each value beside its threshold, what became of it and why, and where its tokens are."""
    from data_pipeline.web.verbs import explain_verb

    explain_verb(folder, page, token, as_json)


@data.command("synthesize")
def data_synthesize(
    recipe: str = RECIPE,
    out: str | None = OUT,
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the counts as one JSON object."),
) -> None:
    """Write lessons, exercises, chat rows, preference pairs and held-out items, every answer checked; writes synthetic/."""
    from data_pipeline.synthetic.build import synthesize
    from data_pipeline.synthetic.recipe import SyntheticRecipe

    settings, run = open_run(recipe, "synthetic", SyntheticRecipe, out, overrides)
    seed = Recipe.load(recipe, overrides).section("run", RunRecipe).seed
    documents = run.web / "held_out.parquet"
    with working("writing synthetic text") as status:
        record = synthesize(settings, run.synthetic, seed, documents if documents.exists() else None, status.update)
    if as_json:
        print(json.dumps(record))
        return
    print(
        f"{run.synthetic}: {record['documents']:,} documents, {record['sft_rows']:,} chat rows and {record['dpo_rows']:,} preference pairs "
        f"in {len(record['families'])} families"
    )
    print(
        f"held out: {record['held_out_items']:,} four-way items, {record['held_out_exercises']:,} exercises, "
        f"{record['held_out_preferences']:,} preference pairs, {record.get('held_out_documents', 0):,} documents"
    )
    print(f"checked: {record['checked_problems']:,} answers, {record['executed_programs']:,} programs executed")
    if not documents.exists():
        print(f"no {documents}, so no held-out documents for bits per byte; `phial data build` writes them")


@data.command("extract")
def data_extract(
    files: list[str] = typer.Argument(metavar="FILE...", help="HTML files; .gz is unpacked."),
    url: str | None = typer.Option(None, "--url", help="The page's address, which some extractors read a language from."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object per file: file, text, language, dropped, seconds."),
) -> None:
    """The main text of HTML files."""
    from data_pipeline.web.verbs import extract_verb

    extract_verb(files, url, as_json)


@data.command("decontaminate")
def data_decontaminate(
    files: list[str] = typer.Argument(metavar="FILE...", help="Parquet or JSON lines with a column text; globs are taken."),
    benchmarks: list[str] = typer.Option(..., "--benchmarks", help="A folder of benchmark files. May be given again."),
    out: str = typer.Option(..., "--out", help="The folder to write: clean/, contaminated/, contamination.json, split/."),
    overrides: list[str] | None = typer.Option(None, "--set", help="Override one setting, for example web.decontamination.words=10."),
    as_json: bool = typer.Option(False, "--json", help="Print the record as one JSON object."),
) -> None:
    """Take texts that hold benchmark items out of files, and tell each benchmark's items apart into clean and dirty."""
    from data_pipeline.web.decontamination.verbs import decontaminate_verb

    decontaminate_verb(files, benchmarks, out, overrides or [], as_json)


@data.command("convert")
def data_convert(
    source: str = typer.Argument(metavar="SRC", help="Token shards, .ds, .bin/.idx; or documents: .parquet, .jsonl, .jsonl.gz."),
    destination: str = typer.Argument(metavar="DST", help="What to write; its ending tells the form, none means token shards."),
    from_form: str = typer.Option("", "--from", help="shards, datatrove, megatron, parquet or jsonl, where SRC does not show it."),
    to_form: str = typer.Option("", "--to", help="The same for DST."),
    dtype: str = typer.Option("", "--dtype", help="Of the ids: uint16, uint32 (datatrove) or int32 (Megatron); else as in SRC."),
    tokenizer_folder: str = typer.Option("", "--tokenizer", help="Whose tokens they are; needed to write token shards."),
    name: str = typer.Option("", "--source", help="The source's name in the shards' manifest; else the folder's."),
    ignore_loss_mask: bool = typer.Option(False, "--ignore-loss-mask", help="Leave a .ds.loss file behind instead of refusing it."),
    as_json: bool = typer.Option(False, "--json", help="Print the counts as one JSON object."),
) -> None:
    """Token files of other programs to ours and back, and documents between Parquet and JSON lines."""
    from data_pipeline.interchange.convert import Settings
    from data_pipeline.interchange.verbs import convert_verb

    settings = Settings(
        from_form=from_form, to_form=to_form, dtype=dtype, tokenizer=tokenizer_folder, source=name, ignore_loss_mask=ignore_loss_mask
    )
    convert_verb(source, destination, settings, as_json)


@tokenizer.callback()
def tokenizer_verbs() -> None:
    """Train the byte-level BPE tokenizer, or convert a published one."""


@tokenizer.command("train")
def tokenizer_train(
    recipe: str = RECIPE,
    out: str | None = OUT,
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the facts as one JSON object."),
) -> None:
    """Train the byte-level BPE on the run's kept pages, lessons and chat rows; writes tokenizer/."""
    from data_pipeline.tokens.build import train_run_tokenizer
    from data_pipeline.tokens.recipe import TokenizerRecipe

    settings, run = open_run(recipe, "tokenizer", TokenizerRecipe, out, overrides)
    with working("training the tokenizer"):
        facts = train_run_tokenizer(settings, run)
    if as_json:
        print(json.dumps(facts))
        return
    print(
        f"{run.tokenizer}: {facts['vocab_size']:,} entries ({facts['merges']:,} merges) "
        f"from {facts['documents']:,} texts, {facts['bytes'] / 1e6:.1f} MB"
    )
    if facts["vocab_size"] < facts["asked_vocab_size"]:
        print(f"the texts hold no more pairs seen {settings.min_frequency} times; vocab_size = {facts['asked_vocab_size']} was asked for")


@tokenizer.command("convert")
def tokenizer_convert(
    source: str = typer.Argument(metavar="SRC", help="tokenizer.model, a tiktoken file, tokenizer.json, or a folder with one of them."),
    destination: str = typer.Argument(
        metavar="DST", help="The folder to write into: a new one, or a model's; what lies there stays, but for a tokenizer's files."
    ),
    member: str = typer.Option(..., "--member", help="Whose tokenizer: mini, medium, small, phi-4 or phi-4-mini."),
    rstrip: bool = typer.Option(
        True, "--rstrip/--no-rstrip", help="Whether mini's special tokens take the blanks after them; those of its first release do not."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as one JSON object."),
) -> None:
    """Turn a published vocabulary into a tokenizer folder that AutoTokenizer loads, with the member's special tokens and chat format."""
    from data_pipeline.tokens.convert import convert_tokenizer
    from data_pipeline.tokens.members import member_named

    with working("converting"):
        facts = convert_tokenizer(source, destination, member_named(member), rstrip)
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{destination}: {facts['member']}, {facts['vocab_size']:,} entries ({facts['merges']:,} merges) from a {facts['kind']} file")


@data.command("tokenize")
def data_tokenize(
    recipe: str = RECIPE,
    out: str | None = OUT,
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the facts as one JSON object."),
) -> None:
    """Turn kept pages, the clean ones among them, and lessons into token shards; writes tokens/<source>/."""
    from data_pipeline.tokens.build import tokenize_run
    from data_pipeline.tokens.recipe import TokensRecipe

    settings, run = open_run(recipe, "tokens", TokensRecipe, out, overrides)
    with working("tokenizing") as status:
        facts = tokenize_run(
            settings, run, lambda source, documents, tokens: status.update(f"{source}: {documents:,} documents, {tokens:,} tokens")
        )
    if as_json:
        print(json.dumps(facts))
        return
    for source, one in facts.items():
        print(
            f"{run.tokens / source}: {one['tokens']:,} tokens of {one['documents']:,} documents, "
            f"{one['bytes_per_token']:.2f} bytes per token"
        )


def worker(
    journal: str = typer.Option(
        ..., "--journal", help="The folder or URL that the driver's Engine was given, for example s3://bucket/run."
    ),
    seconds: float | None = typer.Option(None, "--seconds", min=0, help="Stop after so long, and give back what is under way."),
    idle_seconds: float | None = typer.Option(None, "--idle-seconds", min=0, help="Wait for more plans; stop after so long without work."),
    workers: int = typer.Option(1, "--workers", min=1, help="Processes that work side by side."),
    lease_seconds: float = typer.Option(60.0, "--lease-seconds", min=0.1, max=86400, help="How long a claim lasts when this machine dies."),
) -> None:
    """Claim tasks of the journal's plans and do them until all are done.

    Start as many as you like, wherever the journal can be reached; each may be killed at any moment. SIGTERM gives back what is under way.
    """
    from data_pipeline.engine.standing import STOPPED, stand

    if os.getcwd() not in sys.path:  # where the functions of a plan are looked for, as `python -m` would do
        sys.path.insert(0, os.getcwd())
    found = stand(journal, workers=workers, seconds=seconds, idle_seconds=idle_seconds, lease_seconds=lease_seconds)
    for line in found["refused"]:
        print(f"phial worker: left out: {line}", file=sys.stderr)
    print(f"{found['tasks']} tasks done; ended: {found['ended']}")
    if found["ended"] == STOPPED:
        raise typer.Exit(143)  # what a process that SIGTERM ended tells the batch system, so that it is started again
