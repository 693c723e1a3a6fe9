"""The verbs `phial data ...` and `phial tokenizer ...`."""

import typer

data = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
tokenizer = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@data.callback()
def data_verbs() -> None:
    """Web pages and synthetic text: collect, build, synthesize, extract, tokenize."""


@tokenizer.callback()
def tokenizer_verbs() -> None:
    """Train the byte-level BPE tokenizer."""
