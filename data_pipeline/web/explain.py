"""A page's whole story from the ledger: where it came from, what was measured, what became of it and why, and where its tokens are."""

import difflib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.tokens.text_file import mismatch
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import Maximum, rules_of, threshold_rules
from data_pipeline.web.tables import LEDGER, PERSONAL

MEMBERS = 10
ALIKE = 50  # names that are compared letter by letter
SOURCES = ("web", "web_clean")


def explain(run: RunFolder, recipe: WebRecipe, wanted: str) -> dict[str, Any]:
    """The story of the page with this id or address: the ledger's row, its rules, its cluster, its tokens.

    Columns that the ledger of an older build does not have are None and named in `not_measured`. No text is read. Raises InputError where
    there is no ledger or no such page; then the nearest ids and addresses are named.
    """
    with ledger_of(run) as table:
        missing = [name for name in LEDGER.names if name not in table.schema_arrow.names]
        place, row = find_row(table, wanted, run)
        row |= dict.fromkeys(missing)
        cluster = members(table, row["cluster"]) if row["cluster"] else []
    return {
        "row": row,
        "place": place,
        "rules": rules_met(row, recipe),
        "cluster": cluster,
        "not_measured": missing,
        "tokens": {source: found for source in SOURCES if (found := tokens_of(run, source, row)) is not None},
    }


def ledger_of(run: RunFolder) -> pq.ParquetFile:
    path = run.web / "ledger.parquet"
    try:
        return pq.ParquetFile(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no ledger; `phial data build` writes it") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: damaged ({error}); run `phial data build` again") from error


def find_row(table: pq.ParquetFile, wanted: str, run: RunFolder) -> tuple[int, dict[str, Any]]:
    """(place in the crawl, the row) of an id, else of an address; row groups whose names lie elsewhere are not read."""
    for column in ("id", "url"):
        start = 0
        for group in range(table.num_row_groups):
            if may_hold(table, group, column, wanted):
                names = table.read_row_group(group, [column]).column(0)
                found = pc.call_function("index", [names], pc.IndexOptions(pa.scalar(wanted, pa.string()))).as_py()
                if found >= 0:
                    return start + found, table.read_row_group(group).slice(found, 1).to_pylist()[0]
            start += table.metadata.row_group(group).num_rows
    raise InputError(f"{run.web}: no page {wanted!r} in its ledger of {table.metadata.num_rows:,} records{nearest(table, wanted)}")


def may_hold(table: pq.ParquetFile, group: int, column: str, wanted: str) -> bool:
    """Whether a row group's least and greatest name leave room for this one; true where they are not told, false without the column."""
    if column not in table.schema_arrow.names:
        return False
    told = table.metadata.row_group(group).column(table.schema_arrow.names.index(column)).statistics
    return told is None or not told.has_min_max or told.min <= wanted <= told.max


def nearest(table: pq.ParquetFile, wanted: str) -> str:
    """The most similar ids and addresses, as the end of a sentence: among those that begin or end as the wanted one does."""
    known: list[str] = []
    for group in range(table.num_row_groups):
        columns = [name for name in ("id", "url") if name in table.schema_arrow.names]
        for names in table.read_row_group(group, columns).columns:
            known += alike(names, wanted)
        if len(known) > 4 * ALIKE:
            known = difflib.get_close_matches(wanted, known, ALIKE, 0.3)
    found = difflib.get_close_matches(wanted, dict.fromkeys(known), 3, 0.5)
    return f"; near are {', '.join(found)}" if found else "; give an id or an address as kept.parquet and dropped.parquet have them"


def alike(names: pa.ChunkedArray, wanted: str) -> list[str]:
    """A few of the names that have the longest beginning, or the longest end, in common with the wanted one."""
    found: list[str] = []
    for kind, part in (("starts_with", lambda size: wanted[:size]), ("ends_with", lambda size: wanted[len(wanted) - size :])):
        for quarter in (4, 3, 2, 1):
            pattern = part(max(len(wanted) * quarter // 4 - (quarter == 4), 1))
            here = names.filter(pc.call_function(kind, [names], pc.MatchSubstringOptions(pattern)))
            if len(here):
                found += here.slice(0, ALIKE).to_pylist()
                break
    return found


def members(table: pq.ParquetFile, cluster: str) -> list[str]:
    """The ids of a cluster, in crawl order."""
    found: list[str] = []
    for group in range(table.num_row_groups):
        names = table.read_row_group(group, ["id", "cluster"])
        found += names.filter(pc.field("cluster") == cluster).column("id").to_pylist()
    return found


def rules_met(row: dict[str, Any], recipe: WebRecipe) -> list[dict[str, Any]]:
    """Each rule with the page's value, its threshold, and whether the page meets it; for the clean subset too."""
    clean = {(type(rule), rule.measure): rule.threshold for rule in threshold_rules(recipe.clean)}
    return [
        {
            "measure": rule.measure,
            "value": row[rule.measure],
            "side": "at most" if isinstance(rule, Maximum) else "at least",
            "threshold": rule.threshold,
            "met": rule.threshold >= row[rule.measure] if isinstance(rule, Maximum) else rule.threshold <= row[rule.measure],
            "clean_threshold": clean.get((type(rule), rule.measure)),
        }
        for rule in rules_of(recipe)
        if row.get(rule.measure) is not None
    ]


def tokens_of(run: RunFolder, source: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """Where a kept page's tokens lie in a source's shards; None where it is no page of that source, or there are no shards.

    Shards hold the rows of kept.parquet in their order, so a page's document is told by its row; where the counts differ the shards are of
    another build, and that is said.
    """
    folder = run.tokens / source
    if row["outcome"] != "kept" or (source == "web_clean" and not row["clean"]) or not (folder / "manifest.json").exists():
        return None
    shards = TokenShards.open(folder)
    document, documents = -1, 0
    for ids in documents_of(run, source):
        found = pc.call_function("index", [ids], pc.IndexOptions(pa.scalar(row["id"], pa.string()))).as_py()
        document = documents + found if found >= 0 else document
        documents += len(ids)
    other = mismatch(shards.manifest, run.web / "kept.parquet", documents)
    if other:
        return {"told": other}
    if document < 0:
        return {"told": "kept.parquet does not have this page: it is of another build than the ledger"}
    ends = shards.ends()
    start, stop = int(ends[document - 1]) if document else 0, int(ends[document])
    shard = int(np.searchsorted(shards.bounds, start, side="right")) - 1
    return {"shard": shard, "offset": start - int(shards.bounds[shard]), "token": start, "tokens": stop - start, "document": document}


def documents_of(run: RunFolder, source: str) -> Iterator[pa.Array]:
    """The ids of the pages whose texts became the documents of a source, in their order, in batches; see `tokens/build.py`.

    A page without text is no document; whether it has one is told by its characters, so that no text is read.
    """
    try:
        table = pq.ParquetFile(run.web / "kept.parquet")
    except FileNotFoundError as error:
        raise InputError(
            f"{run.web / 'kept.parquet'}: no such file, so documents cannot be counted; run `phial data build` again"
        ) from error
    with table:
        names = table.schema_arrow.names
        sizes = ["characters", "removed_characters"] if "characters" in names else ["text"]
        for batch in table.iter_batches(columns=["id", "clean", *(name for name in sizes if name in names)]):
            taken = length_of(batch) > 0
            if source == "web_clean":
                taken &= pc.fill_null(batch.column("clean"), False).to_numpy(zero_copy_only=False)
            yield batch.column("id").filter(pa.array(taken))


def length_of(batch: pa.RecordBatch) -> np.ndarray:
    """The length of each text, in characters where they were counted, else in bytes: int64 [pages]."""
    if "text" in batch.schema.names:
        lengths = pc.call_function("binary_length", [batch.column("text")])
        return pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    counts = [pc.fill_null(batch.column(name), 0).to_numpy(zero_copy_only=False) for name in batch.schema.names[2:]]
    return counts[0] - counts[1] if len(counts) > 1 else counts[0]


def page_of_token(run: RunFolder, source: str, token: int) -> str:
    """The id of the page that a token of a source came from; tokens are counted over all its shards."""
    if source not in SOURCES:
        raise InputError(f"{source}: {' or '.join(SOURCES)} is needed, as in --token web:1000")
    shards = TokenShards.open(run.tokens / source)
    if not 0 <= token < shards.num_tokens:
        raise InputError(f"{run.tokens / source}: token {token:,}; 0 to {shards.num_tokens - 1:,} are there")
    wanted = int(np.searchsorted(shards.ends(), token, side="right"))
    page, documents = "", 0
    for ids in documents_of(run, source):
        if documents <= wanted < documents + len(ids):
            page = ids[wanted - documents].as_py()
        documents += len(ids)
    other = mismatch(shards.manifest, run.web / "kept.parquet", documents)
    if other:
        raise InputError(f"{run.tokens / source}: {other}; run `phial data tokenize` again")
    return page


def story(found: dict[str, Any]) -> list[str]:
    """The lines that tell it."""
    row = found["row"]
    lines = [f"{row['id']}", f"  {row['url'] or 'without an address'}", f"  {where(row)}"]
    lines += [f"  {name}: {row[name]}" for name in ("snapshot", "robots", "licence") if row[name]]
    if row["text_bytes"] is not None:
        lines.append(
            f"  {told(row['html_bytes'])} bytes, text by {row['extraction']}: {told(row['words'])} words, {row['text_bytes']:,} bytes"
        )
        second = f", {row['second_language']} by the second opinion" if row["second_language"] else ""
        lines.append(f"  language {row['language'] or 'unknown'}, {told(row['language_distance'])} from its profile{second}")
    if row.get("quality") is not None:
        lines.append(f"  quality {row['quality']:.4g}" + (f", {row['quality_kind']}" if row.get("quality_kind") else ""))
    masked = ", ".join(f"{row[f'personal_{kind}']} {kind}" for kind in PERSONAL if row[f"personal_{kind}"])
    lines += [f"  masked: {masked}"] if masked else []
    lines.append(outcome(row))
    lines += [f"  contains {line}" for line in (row["contamination"] or "").split("\n") if line]
    if found["cluster"]:
        more = f" and {len(found['cluster']) - MEMBERS:,} more" if len(found["cluster"]) > MEMBERS else ""
        lines.append(f"  cluster of {len(found['cluster']):,}: {', '.join(found['cluster'][:MEMBERS])}{more}")
        lines.append(f"  of it stays {row['representative']}")
    for source, place in found["tokens"].items():
        said = place.get("told") or f"{place['tokens']:,} tokens from offset {place['offset']:,} of shard {place['shard']}"
        lines.append(f"  tokens/{source}: {said}")
    lines += [rule_line(rule) for rule in found["rules"]]
    if found["not_measured"]:
        lines.append(f"  not measured in this build: {', '.join(found['not_measured'])}")
    return lines


def where(row: dict[str, Any]) -> str:
    """Where the record lies."""
    fetched = f", fetched {row['fetched']}" if row["fetched"] else ""
    return f"record {told(row['record'])} at byte {told(row['offset'])} of {row['file'] or 'a file that was not noted'}{fetched}"


def told(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def outcome(row: dict[str, Any]) -> str:
    """What became of the page, in a line."""
    if row["outcome"] == "dropped":
        beside = "" if row["value"] is None or row["threshold"] is None else f" is {row['value']:.4g}, the threshold {row['threshold']:.4g}"
        return (
            f"dropped: {row['reason'] or 'for a reason that was not noted'}; {row['measure'] or 'what was measured is not noted'}{beside}"
        )
    return ("held out from training" if row["outcome"] == "held_out" else "kept") + (", in the clean subset" if row["clean"] else "")


def rule_line(rule: dict[str, Any]) -> str:
    strict = rule["clean_threshold"]
    beside = f" (clean: {strict:g})" if strict is not None and strict != rule["threshold"] else ""
    mark = " " if rule["met"] else "!"
    return f"  {mark} {rule['measure']:<32} {rule['value']:>10.4g}  {rule['side']} {rule['threshold']:g}{beside}"
