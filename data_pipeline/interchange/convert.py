"""From one form to another: token files to token files, documents to documents; what was written is read again and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.interchange.datatrove import open_datatrove, write_datatrove
from data_pipeline.interchange.documents import DocumentDigest, DocumentFile, write_document_file
from data_pipeline.interchange.megatron import open_megatron, pair, write_megatron
from data_pipeline.interchange.tokens import TokenFile, digest_of

TOKENS = ("shards", "datatrove", "megatron")
DOCUMENTS = ("parquet", "jsonl")
FORMS = (*TOKENS, *DOCUMENTS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the caller decides. `dtype` empty: the source's, or the nearest that the target's form has."""

    from_form: str = ""
    to_form: str = ""
    dtype: str = ""
    tokenizer: str = ""  # a folder with tokenizer.json: whose tokens other programs' files hold; for a target of shards
    source: str = ""  # the name of the source in a manifest; the target folder's by default
    shard_tokens: int = 2**27
    ignore_loss_mask: bool = False


def convert(src: Path, dst: Path, settings: Settings) -> dict[str, Any]:
    """Writes `dst` and verifies it; returns forms, counts, digest and notes.

    Raises InputError for a form that cannot be told, for tokens to documents, for damaged or truncated sources, for ids that the target's
    type does not hold, and for a target that stands there already.
    """
    first, second = form_of(src, settings.from_form, reading=True), form_of(dst, settings.to_form, reading=False)
    if (first in TOKENS) != (second in TOKENS):
        raise InputError(f"{first} to {second}: tokens ({', '.join(TOKENS)}) become tokens, documents ({', '.join(DOCUMENTS)}) documents")
    if second in DOCUMENTS:
        return convert_documents(src, dst) | {"from": first, "to": second}
    source = open_tokens(src, first, settings)
    before = digest_of(source)
    if (before.tokens, before.documents) != (source.tokens, source.documents):
        raise InputError(
            f"{src}: holds {before.tokens} tokens of {before.documents} documents, but says {source.tokens} of {source.documents}"
        )
    dtype = settings.dtype or nearest(source.dtype, second)
    if second == "shards":
        dtype = write_own(source, dst, settings)
    else:
        (write_datatrove if second == "datatrove" else write_megatron)(source, dst, dtype)
    after = digest_of(open_tokens(dst, second, settings))
    if after.hexdigest() != before.hexdigest():
        raise OSError(f"{dst}: what was written reads back differently; the disk is not to be trusted")
    return {
        "from": first,
        "to": second,
        "tokens": after.tokens,
        "documents": after.documents,
        "dtype": dtype,
        "digest": after.hexdigest(),
        "notes": list(source.notes),
    }


def write_own(source: TokenFile, dst: Path, settings: Settings) -> str:
    """Token shards; their manifest names the tokenizer, which other programs' files do not know well enough."""
    from data_pipeline.interchange.shards import tokenizer_facts, write_shards

    if settings.dtype:
        raise InputError("--dtype is not for token shards, whose type follows from the vocabulary")
    if not settings.tokenizer:
        raise InputError(f"{dst}: token shards name their tokenizer; give its folder with --tokenizer")
    facts = tokenizer_facts(settings.tokenizer)
    write_shards(source, dst, settings.source or dst.name, settings.shard_tokens, facts)
    return "uint16" if facts["vocab_size"] <= 65_536 else "uint32"


def open_tokens(path: Path, form: str, settings: Settings) -> TokenFile:
    """A token file of this form."""
    if form == "shards":
        from data_pipeline.interchange.shards import open_shards

        return open_shards(path)
    return open_datatrove(path, settings.ignore_loss_mask) if form == "datatrove" else open_megatron(path)


def nearest(dtype: str, form: str) -> str:
    """The form's type of the same width."""
    if dtype == "uint16":
        return dtype
    return "int32" if form == "megatron" else "uint32"


def convert_documents(src: Path, dst: Path) -> dict[str, Any]:
    """Documents to documents."""
    if dst.exists():
        raise InputError(f"{dst}: stands there already; give another name or take it away")
    source, before, after = DocumentFile(src), DocumentDigest(), DocumentDigest()
    write_document_file(before.watch(iter(source)), dst)
    for _ in after.watch(iter(DocumentFile(dst))):
        pass
    if after.hash.digest() != before.hash.digest():
        dst.unlink()
        raise OSError(f"{dst}: what was written reads back differently; the disk is not to be trusted")
    notes = [f"no place for {', '.join(sorted(source.left_out))}: left out"] if source.left_out else []
    return {"documents": after.documents, "characters": after.characters, "digest": after.hash.hexdigest(), "notes": notes}


def form_of(path: Path, told: str, reading: bool) -> str:
    """The form that was told, or that the name or what lies there shows."""
    if told:
        if told not in FORMS:
            raise InputError(f"no form called {told!r}; there is {', '.join(FORMS)}")
        return told
    by_ending = {".ds": "datatrove", ".bin": "megatron", ".idx": "megatron", ".parquet": "parquet", ".jsonl": "jsonl"}
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending in by_ending:
        return by_ending[ending]
    if not reading:
        if ending:
            raise InputError(f"{path}: {ending} is no ending of a form; {', '.join(by_ending)}, or a folder's name for token shards")
        return "shards"
    if (path / "manifest.json").is_file():
        return "shards"
    if path.is_dir() and any(path.glob("*.ds")):
        return "datatrove"
    if pair(path)[1].is_file():
        return "megatron"
    raise InputError(f"{path}: neither a folder of token shards or .ds files nor a name of .bin and .idx files; --from FORM tells it")
