"""Bytes per token: measured where the run has token shards of this build, else assumed."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.tokens.shards import read_manifest
from data_pipeline.tokens.text_file import mismatch


def tokens_of(folder: Path, kept: Path, outcomes: dict[str, dict[str, int]], assumed: float) -> dict[str, Any]:
    """Of a run's tokens/ in `folder`, made from the build's `kept` pages.

    `bytes_per_token`, whether it is `measured`, the tokens of each source, and a line where shards do not fit.
    """
    told = {"web": "kept", "web_clean": "clean"}
    found: dict[str, Any] = {"bytes_per_token": assumed, "measured": False, "sources": {}, "note": ""}
    for source, outcome in told.items():
        if not (folder / source / "manifest.json").exists():
            continue
        try:
            manifest = read_manifest(folder / source)
        except InputError as error:
            found["note"] = str(error).removeprefix(f"{folder}/")
            continue
        other = mismatch(manifest, kept, outcomes[outcome]["documents"])
        if other:
            found["note"] = f"tokens/{source}: {other}"
            continue
        found["sources"][source] = manifest["tokens"]
    if found["sources"].get("web"):
        found["bytes_per_token"] = outcomes["kept"]["text_bytes"] / found["sources"]["web"]
        found["measured"] = True
    return found
