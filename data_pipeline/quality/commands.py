"""The verbs `phial data quality ...`."""

import typer

quality = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

DOCUMENTS = "Documents: Parquet or JSON lines with id, text and url; a path, URL or glob."
LABELS = "Labels: JSON lines or Parquet with id (or text), score from 0 to 5 and, optionally, kind."


@quality.callback()
def quality_verbs() -> None:
    """How much a page teaches, and what kind of knowledge it is: label, train, score, audit."""


@quality.command("label")
def quality_label(
    documents: str = typer.Argument(metavar="DOCS", help=DOCUMENTS),
    endpoint: str = typer.Option(..., "--endpoint", help="An OpenAI-compatible address, for example http://localhost:8000/v1."),
    model: str = typer.Option(..., "--model", help="The endpoint's name of the teacher."),
    out: str = typer.Option(..., "--out", help="The labels file to write, JSON lines; OUT.report.json is written beside it."),
    sample: int = typer.Option(10_000, "--sample", help="How many documents are asked about, stratified by length, site and first score."),
    seed: int = typer.Option(0, "--seed", help="Of the sample and of the teacher's sampling."),
    twice: float = typer.Option(0.05, "--twice", help="Share that is asked about twice, to see how far the teacher agrees with itself."),
    rate: float = typer.Option(0.0, "--rate", min=0.0, max=10_000.0, help="Requests a second at most; 0 for no limit."),
    parallel: int = typer.Option(8, "--parallel", help="Requests at the same time."),
    temperature: float = typer.Option(0.0, "--temperature", help="The teacher's sampling."),
    max_tokens: int = typer.Option(200, "--max-tokens", help="Of an answer; a teacher that thinks first needs more."),
    max_characters: int = typer.Option(6_000, "--max-characters", help="Of a page that the teacher sees, from its beginning."),
    timeout: float = typer.Option(120.0, "--timeout", min=0.1, max=3_600.0, help="Seconds for one answer."),
    tries: int = typer.Option(6, "--tries", min=1, max=50, help="Of one request, with growing waits."),
    key_variable: str | None = typer.Option(None, "--key-variable", help="The environment variable that holds the endpoint's key."),
    cache: str | None = typer.Option(None, "--cache", help="Where answers are kept; else OUT.answers.jsonl."),
    first_model: str | None = typer.Option(
        None, "--first-model", help="An earlier quality model, whose scores the sample is stratified by."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the report as one JSON object."),
) -> None:
    """Ask a teacher for scores and kinds of a sample of documents; answers are kept, so that none is paid for twice."""
    from data_pipeline.quality.verbs import label_verb

    given = {
        "model": model,
        "sample": sample,
        "seed": seed,
        "twice": twice,
        "parallel": parallel,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "max_characters": max_characters,
    }
    teacher = {"url": endpoint, "timeout": timeout, "tries": tries, "rate": rate, "variable": key_variable}
    label_verb(documents, out, given, teacher, cache, first_model, as_json)


@quality.command("train")
def quality_train(
    labels: str = typer.Argument(metavar="LABELS", help=LABELS),
    documents: str | None = typer.Option(None, "--documents", help=f"{DOCUMENTS} Not needed where the labels bring text along."),
    out: str = typer.Option(..., "--out", help="The model folder to write."),
    overrides: list[str] | None = typer.Option(None, "--set", help="One setting, name=value, for example bits=18. May be given again."),
    as_json: bool = typer.Option(False, "--json", help="Print sides, thresholds and metrics as one JSON object."),
) -> None:
    """Train, calibrate and measure a model; sites are divided, so that none is both trained on and measured."""
    from data_pipeline.quality.verbs import train_verb

    train_verb(labels, documents, out, overrides or [], as_json)


@quality.command("score")
def quality_score(
    documents: str = typer.Argument(metavar="DOCS", help=DOCUMENTS),
    model: str = typer.Option(..., "--model", help="The model folder."),
    out: str = typer.Option(
        ..., "--out", help="The file to write, .parquet or .jsonl: id, url, score, probability, kind, kind_probability."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the counts as one JSON object."),
) -> None:
    """Score documents."""
    from data_pipeline.quality.verbs import score_verb

    score_verb(documents, model, out, as_json)


@quality.command("audit")
def quality_audit(
    model: str = typer.Argument(metavar="MODEL_DIR", help="The model folder."),
    documents: str = typer.Option(..., "--documents", help=DOCUMENTS),
    labels: str = typer.Option(..., "--labels", help=LABELS),
    out: str = typer.Option(..., "--out", help="The folder that audit.json and audit.html are written into."),
    every_site: bool = typer.Option(False, "--every-site", help="Measure every label, for labels that training never had."),
    as_json: bool = typer.Option(False, "--json", help="Print the metrics as one JSON object."),
) -> None:
    """Measure a model on labelled documents of sites it has not seen: plots, sites, kinds, n-grams and sample pages on one page."""
    from data_pipeline.quality.verbs import audit_verb

    audit_verb(model, documents, labels, out, every_site, as_json)


@quality.command("generate")
def quality_generate(
    out: str = typer.Argument(metavar="OUT", help="The folder that documents.parquet and labels.jsonl are written into."),
    pages: int = typer.Option(3_000, "--pages", min=1, max=10_000_000, help="How many pages."),
    sites: int = typer.Option(60, "--sites", min=1, max=1_000_000, help="Of how many sites."),
    seed: int = typer.Option(0, "--seed", min=0, help="Of the pages."),
    noise: float = typer.Option(0.0, "--noise", min=0.0, max=1.0, help="Share of the labels that are replaced by any."),
) -> None:
    """Write generated pages whose score and kind are known, to try the verbs on; they say nothing about real pages."""
    from data_pipeline.quality.verbs import generate_verb

    generate_verb(out, pages, sites, seed, noise)
