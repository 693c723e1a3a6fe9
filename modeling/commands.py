"""The verb of this room."""

import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Hugging Face folder (phi3 or phi3small), or a checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The new folder: a checkpoint, or a Hugging Face folder.")],
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16: what the weights are rounded to. Left out, they stay as they are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Hugging Face folder to checkpoint, and back, shard by shard; the direction is told by what SRC is.

    DST must be new or empty; it appears whole or not at all. What this decoder does not compute is refused with one line.
    """
    from modeling.convert import convert_model
    from modeling.counts import count_parameters

    kind, config = convert_model(source, target, dtype=dtype)
    parameters = count_parameters(config)
    if as_json:
        print(json.dumps({"written": str(target), "kind": kind, "parameters": parameters}))
    else:
        print(f"{target}: {kind}, {config.num_layers} layers, {parameters:,} parameters, from {source}")
        if kind != "checkpoint" and not (target / "tokenizer.json").is_file():
            print(f"{target}: without a tokenizer.json, which {source} and the run it lies in do not have; `phial chat` needs one")
