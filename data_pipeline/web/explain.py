"""A page's whole story from the ledger: where it came from, what was measured, what became of it and why, and where its tokens are."""

import difflib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.errors import InputError
from data_pipeline.run_folder import RunFolder
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import Maximum, rules_of, threshold_rules
from data_pipeline.web.tables import PERSONAL

MEMBERS = 10
SOURCES = ("web", "web_clean")


def explain(run: RunFolder, recipe: WebRecipe, wanted: str) -> dict[str, Any]:
    """The story of the page with this id or address: the ledger's row, its rules, its cluster, its tokens.

    Raises InputError where there is no ledger or no such page; then the nearest ids are named.
    """
    with ledger_of(run) as table:
        place, row = find_row(table, wanted, run)
        cluster = members(table, row["cluster"]) if row["cluster"] else []
    return {
        "row": row,
        "place": place,
        "rules": rules_met(row, recipe),
        "cluster": cluster,
        "tokens": {source: found for source in SOURCES if (found := tokens_of(run, source, row)) is not None},
    }


def ledger_of(run: RunFolder) -> pq.ParquetFile:
    path = run.web / "ledger.parquet"
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no ledger; `phial data build` writes it") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: damaged ({error}); run `phial data build` again") from error


def find_row(table: pq.ParquetFile, wanted: str, run: RunFolder) -> tuple[int, dict[str, Any]]:
    """(place in the crawl, the row) of an id, else of an address; only the columns of names are read until it is found."""
    start, by_address = 0, None
    for group in range(table.num_row_groups):
        names = table.read_row_group(group, ["id", "url"])
        for column in ("id", "url"):
            found = pc.call_function("index", [names.column(column)], pc.IndexOptions(pa.scalar(wanted, pa.string()))).as_py()
            if found >= 0 and column == "id":
                return start + found, table.read_row_group(group).slice(found, 1).to_pylist()[0]
            if found >= 0 and by_address is None:
                by_address = (group, found, start + found)
        start += names.num_rows
    if by_address is not None:
        group, found, place = by_address
        return place, table.read_row_group(group).slice(found, 1).to_pylist()[0]
    raise InputError(f"{run.web}: no page {wanted!r} in its ledger of {start:,} records{nearest(table, wanted)}")


def nearest(table: pq.ParquetFile, wanted: str) -> str:
    """The most similar ids and addresses of the first rows, as the end of a sentence."""
    names = table.read_row_group(0, ["id", "url"]) if table.num_row_groups else None
    known = [*names.column("id").to_pylist()[:2000], *names.column("url").to_pylist()[:2000]] if names is not None else []
    found = difflib.get_close_matches(wanted, known, 3, 0.5)
    return f"; near are {', '.join(found)}" if found else "; give an id or an address as kept.parquet and dropped.parquet have them"


def members(table: pq.ParquetFile, cluster: str) -> list[str]:
    """The ids of a cluster, in crawl order."""
    found: list[str] = []
    for group in range(table.num_row_groups):
        names = table.read_row_group(group, ["id", "cluster"])
        found += names.filter(pc.field("cluster") == cluster).column("id").to_pylist()
    return found


def rules_met(row: dict[str, Any], recipe: WebRecipe) -> list[dict[str, Any]]:
    """Each rule with the page's value, its threshold, and whether the page meets it; for the clean subset too."""
    if row["words"] is None:
        return []
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
    ids = documents_of(run, source)
    shards = TokenShards.open(folder)
    if len(ids) != shards.num_documents:
        return {"told": f"the shards hold {shards.num_documents:,} documents and the build {len(ids):,}: they are of another build"}
    document = ids.index(row["id"])
    ends = shards.ends()
    start, stop = int(ends[document - 1]) if document else 0, int(ends[document])
    shard = int(np.searchsorted(shards.bounds, start, side="right")) - 1
    return {"shard": shard, "offset": start - int(shards.bounds[shard]), "token": start, "tokens": stop - start, "document": document}


def documents_of(run: RunFolder, source: str) -> list[str]:
    """The ids of the pages whose texts became the documents of a source, in their order; see `tokens/build.py`."""
    ids: list[str] = []
    with pq.ParquetFile(run.web / "kept.parquet") as table:
        for batch in table.iter_batches(columns=["id", "clean", "text"]):
            lengths = pc.call_function("binary_length", [batch.column("text")]).to_pylist()
            rows = zip(batch.column("id").to_pylist(), batch.column("clean").to_pylist(), lengths, strict=True)
            ids += [name for name, clean, length in rows if length and (clean or source == "web")]
    return ids


def page_of_token(run: RunFolder, source: str, token: int) -> str:
    """The id of the page that a token of a source came from; tokens are counted over all its shards."""
    if source not in SOURCES:
        raise InputError(f"{source}: {' or '.join(SOURCES)} is needed, as in --token web:1000")
    shards = TokenShards.open(run.tokens / source)
    if not 0 <= token < shards.num_tokens:
        raise InputError(f"{run.tokens / source}: token {token:,}; 0 to {shards.num_tokens - 1:,} are there")
    ids = documents_of(run, source)
    if len(ids) != shards.num_documents:
        raise InputError(
            f"{run.tokens / source}: {shards.num_documents:,} documents, and the build has {len(ids):,}: the tokens are of another build"
        )
    return ids[int(np.searchsorted(shards.ends(), token, side="right"))]


def story(found: dict[str, Any]) -> list[str]:
    """The lines that tell it."""
    row = found["row"]
    lines = [f"{row['id']}", f"  {row['url'] or 'without an address'}"]
    fetched = f", fetched {row['fetched']}" if row["fetched"] else ""
    lines.append(f"  record {row['record']:,} at byte {row['offset']:,} of {row['file']}{fetched}")
    for name in ("snapshot", "robots", "licence"):
        if row[name]:
            lines.append(f"  {name}: {row[name]}")
    if row["words"] is not None:
        second = f", {row['second_language']} by the second opinion" if row["second_language"] else ""
        lines.append(f"  {row['html_bytes']:,} bytes, text by {row['extraction']}: {row['words']:,} words, {row['text_bytes']:,} bytes")
        lines.append(f"  language {row['language']}, {row['language_distance']} from its profile{second}")
    masked = ", ".join(f"{row[f'personal_{kind}']} {kind}" for kind in PERSONAL if row[f"personal_{kind}"])
    lines += [f"  masked: {masked}"] if masked else []
    lines.append(outcome(row))
    lines += [f"  contains {line}" for line in row["contamination"].split("\n") if line]
    if found["cluster"]:
        more = f" and {len(found['cluster']) - MEMBERS:,} more" if len(found["cluster"]) > MEMBERS else ""
        lines.append(f"  cluster of {len(found['cluster']):,}: {', '.join(found['cluster'][:MEMBERS])}{more}")
        lines.append(f"  of it stays {row['representative']}")
    for source, place in found["tokens"].items():
        said = place.get("told") or f"{place['tokens']:,} tokens from offset {place['offset']:,} of shard {place['shard']}"
        lines.append(f"  tokens/{source}: {said}")
    lines += [rule_line(rule) for rule in found["rules"]]
    return lines


def outcome(row: dict[str, Any]) -> str:
    """What became of the page, in a line."""
    if row["outcome"] == "dropped":
        return f"dropped: {row['reason']}; {row['measure']} is {row['value']:.4g}, the threshold {row['threshold']:.4g}"
    return ("held out from training" if row["outcome"] == "held_out" else "kept") + (", in the clean subset" if row["clean"] else "")


def rule_line(rule: dict[str, Any]) -> str:
    strict = rule["clean_threshold"]
    beside = f" (clean: {strict:g})" if strict is not None and strict != rule["threshold"] else ""
    mark = " " if rule["met"] else "!"
    return f"  {mark} {rule['measure']:<32} {rule['value']:>10.4g}  {rule['side']} {rule['threshold']:g}{beside}"
