"""The verbs `phial data ...` and `phial tokenizer ...`."""

import json
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
    """Web pages and synthetic text: collect, build, synthesize, extract, tokenize."""


@data.command("collect")
def data_collect(
    folder: str = typer.Argument(metavar="OUT", help="The crawl folder to write, for example runs/demo/crawl."),
    warc: str | None = typer.Option(None, "--warc", help="WARC files: a path, URL (http, s3) or glob; read in place, not copied."),
    recipe: str | None = typer.Option(None, "--recipe", help="A recipe whose [collect] and [run] sections are used."),
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the record as one JSON object."),
) -> None:
    """Raw pages into a crawl folder: your WARC files, or the standard library's pages with known bad ones mixed in."""
    from data_pipeline.web.verbs import collect_verb

    collect_verb(folder, warc, recipe, overrides or [], as_json)


@data.command("build")
def data_build(
    recipe: str = RECIPE,
    out: str | None = OUT,
    overrides: list[str] | None = SET,
    as_json: bool = typer.Option(False, "--json", help="Print the funnel as one JSON object."),
) -> None:
    """Filter the run's crawl: extraction, language, quality rules, personal data, duplicates; writes web/."""
    from data_pipeline.web.recipe import WebRecipe
    from data_pipeline.web.verbs import build_verb

    settings, run = open_run(recipe, "web", WebRecipe, out, overrides)
    build_verb(settings, run, Recipe.load(recipe, overrides).section("run", RunRecipe).seed, as_json)


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
