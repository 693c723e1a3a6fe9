"""The two token stages of a run: which texts train its tokenizer, and which become the token shards of which source."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import open_read, read_json_lines
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import tokenize
from data_pipeline.tokens.text_file import fingerprint_of
from data_pipeline.tokens.tokenizer import train_tokenizer

Progress = Callable[[str, int, int], None]  # source, documents so far, tokens so far


def train_run_tokenizer(recipe: TokenizerRecipe, run: RunFolder) -> dict[str, Any]:
    """Trains on the run's kept pages, synthetic documents and chat rows and writes `tokenizer/`; one of the three suffices."""
    files = {
        run.web / "kept.parquet": column_texts,
        run.synthetic / "documents.parquet": column_texts,
        run.synthetic / "sft.jsonl": chat_texts,
    }
    found = {path: read for path, read in files.items() if path.exists()}
    if not found:
        raise InputError(f"{run.root}: no text for the tokenizer; run `phial data build` or `phial data synthesize` first")
    facts = train_tokenizer(recipe, (text for path, read in found.items() for text in read(path)), run.tokenizer)
    return {**facts, "texts": [str(path.relative_to(run.root)) for path in found]}


def tokenize_run(recipe: TokensRecipe, run: RunFolder, on_progress: Progress | None = None) -> dict[str, dict[str, Any]]:
    """Writes `tokens/<source>/` for every source of the recipe; returns each one's documents, tokens, bytes of text and vocab_size."""
    if not (run.tokenizer / "tokenizer.json").exists():
        raise InputError(f"{run.tokenizer}: no tokenizer; run `phial tokenizer train` first")
    files = {source: source_file(run, source) for source in recipe.sources}  # all are there before the first is read
    facts: dict[str, dict[str, Any]] = {}
    for source, path in files.items():
        texts = column_texts(path, only_clean=source == "web_clean")
        counted = CountedBytes(texts)
        told = (lambda documents, tokens, name=source: on_progress(name, documents, tokens)) if on_progress else None
        manifest = tokenize(recipe, run.tokenizer, source, counted, run.tokens / source, told, fingerprint_of(path))
        facts[source] = {
            "documents": manifest["documents"],
            "tokens": manifest["tokens"],
            "text_bytes": counted.bytes,
            "bytes_per_token": counted.bytes / manifest["tokens"],
            "vocab_size": manifest["vocab_size"],
            "shards": len(manifest["shards"]),
        }
    return facts


class CountedBytes:
    """Passes texts on and counts their bytes of UTF-8."""

    def __init__(self, texts: Iterator[str]) -> None:
        self.texts = texts
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.bytes += len(text.encode("utf-8", "surrogatepass"))
            yield text


def source_file(run: RunFolder, source: str) -> Path:
    """The Parquet file behind a source; an error that names the verb which writes it."""
    path = run.synthetic / "documents.parquet" if source == "synthetic" else run.web / "kept.parquet"
    verb = "synthesize" if source == "synthetic" else "build"
    if not path.exists():
        raise InputError(f"{path}: no such file; run `phial data {verb}` first, or leave {source} out of [tokens] sources")
    return path


def column_texts(path: Path, only_clean: bool = False) -> Iterator[str]:
    """The texts of a Parquet file, streamed; with `only_clean` those of the rows whose column `clean` is true."""
    wanted = ["text", "clean"] if only_clean else ["text"]
    with open_read(path) as stream:
        try:
            table = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file ({error})") from error
        missing = [name for name in wanted if name not in table.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: no column {missing[0]!r}; {' and '.join(wanted)} needed, got {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(columns=wanted, batch_size=4096):
            rows = batch.to_pydict()
            clean = rows.get("clean") or [True] * batch.num_rows
            yield from (text for text, good in zip(rows["text"], clean, strict=True) if good and text)


def chat_texts(path: Path) -> Iterator[str]:
    """The contents of the turns of chat rows."""
    for number, row in enumerate(read_json_lines(path), 1):
        turns = row.get("messages")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
            raise InputError(f"{path}, row {number}: messages must be a list of turns with a role and a content")
        yield from (turn["content"] for turn in turns)
