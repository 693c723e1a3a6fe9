"""What becomes of each page once all are known: duplicates and the pages that stay for them, contamination, the held-out pages.

Passes over the stored values and keys, without texts. Pages are numbered by their place in the crawl; what is remembered is a few numbers
for each page that the rules kept, and some twenty bytes for each that they did not.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from data_pipeline.web.contamination_step import Contamination
from data_pipeline.web.duplicates import ClusterBuilder
from data_pipeline.web.line_step import LineStep
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.segments import read_segment
from data_pipeline.web.verdicts import column, judge_batch, needed_columns, objects

KEY = np.dtype("V16")
NO_KEY = bytes(16)

# What drops a page that its own values let pass.
PASSED, SAME_ADDRESS, EXACT, NEAR, NGRAMS, WHOLE, COVERAGE, ANSWER, EMPTIED = range(9)
REASONS = {
    SAME_ADDRESS: ("same_address", "address"),
    EXACT: ("exact_duplicate", "similarity"),
    NEAR: ("near_duplicate", "similarity"),
    NGRAMS: ("contaminated", "long_ngrams"),  # an item's long n-gram stands on the page
    WHOLE: ("contaminated", "coverage_of_common"),  # an item whose n-grams are common, as good as whole
    COVERAGE: ("contaminated", "coverage"),
    ANSWER: ("contaminated", "coverage_beside_answer"),
    EMPTIED: ("repeated_lines", "words"),  # too little is left without them
}
BY_FINDING = {"exact": NGRAMS, "whole": WHOLE, "coverage": COVERAGE, "answer": ANSWER}


@dataclass
class Candidates:
    """The pages that the rules kept: one entry per page in each array."""

    rows: np.ndarray  # int64: place in the crawl
    keys: np.ndarray  # KEY: equal for texts that differ in white space only
    addresses: np.ndarray  # KEY; NO_KEY where there is no address
    merit: np.ndarray  # float64: of a cluster the best stays
    fetched: np.ndarray  # float64: seconds since 1970, 0 where unknown
    snapshots: np.ndarray  # int64: the number of the snapshot's name

    def of(self, places: np.ndarray) -> "Candidates":
        return Candidates(*(getattr(self, name)[places] for name in self.__dataclass_fields__))


@dataclass
class Settled:
    """Per page of the crawl."""

    fate: np.ndarray  # int8: PASSED, or what drops it
    value: np.ndarray  # float32: the similarity to the page that stays, the coverage of a benchmark item
    stays: np.ndarray  # int64: the page that stays for it; its own place where there is none other
    held_out: np.ndarray  # bool
    lines: LineStep | None = None
    contamination: Contamination | None = None
    names: dict[int, str] = field(default_factory=dict)  # ids of the pages that stay for others, and of the first pages of clusters
    firsts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # the first page of the cluster of each page


class Crawl:
    """The measured segments of a crawl in their order."""

    def __init__(self, segments: list[str]) -> None:
        self.segments = segments

    def batches(self, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(place of the first page, the named columns), a batch at a time."""
        place = 0
        for segment in self.segments:
            for batch in read_segment(segment, names):
                yield place, batch
                place += batch.num_rows

    def of_rows(self, rows: np.ndarray, *names: str) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Columns of the given pages (rising places): (their numbers in `rows`, the columns), a batch at a time."""
        for place, batch in self.batches(list(names)):
            first, last = np.searchsorted(rows, [place, place + batch.num_rows])
            if last > first:
                yield np.arange(first, last), batch.take(pa.array(rows[first:last] - place))


def settle(recipe: WebRecipe, crawl: Crawl, scratch: Path, seed: int) -> Settled:
    """The fate of every page. `scratch` is a folder on disk for what does not fit into memory."""
    pages, found = candidates(recipe, crawl)
    settled = Settled(np.zeros(pages, np.int8), np.zeros(pages, np.float32), np.arange(pages), np.zeros(pages, bool))
    left = drop_groups(settled, found, by_address(found), SAME_ADDRESS, latest=True) if recipe.duplicates.one_per_address else found
    left = drop_groups(settled, left, by_key(left.keys), EXACT)
    left = drop_groups(settled, left, by_signature(recipe, crawl, left, scratch), NEAR)
    measure_similarity(settled, crawl)
    if recipe.decontamination.benchmarks:
        left = drop_contaminated(recipe, settled, crawl, left)
    if recipe.lines.documents:
        left = drop_emptied(recipe, settled, crawl, left, scratch)
    settled.held_out[chosen(left.keys, left.rows, recipe.held_out, seed)] = True
    follow(settled)
    name_clusters(settled, crawl)
    return settled


def candidates(recipe: WebRecipe, crawl: Crawl) -> tuple[int, Candidates]:
    """How many pages there are, and those that the rules keep."""
    names = [*needed_columns(recipe), "text_key", "address_key", "fetched", "snapshot"]
    parts: list[Candidates] = []
    snapshots: dict[str, int] = {}
    pages = 0
    for place, batch in crawl.batches(list(dict.fromkeys(names))):
        pages += batch.num_rows
        verdicts = judge_batch(recipe, batch)
        kept = np.flatnonzero(verdicts.passed)
        quality = column(batch, "quality")[kept]
        names_of_snapshots = objects(batch, "snapshot")[kept]
        parts.append(
            Candidates(
                kept + place,
                keys_of(batch, "text_key")[kept],
                keys_of(batch, "address_key")[kept],
                np.where(np.isnan(quality), verdicts.clean[kept].astype(float), quality),
                seconds_of(objects(batch, "fetched")[kept]),
                np.array([snapshots.setdefault(name, len(snapshots)) for name in names_of_snapshots], np.int64),
            )
        )
    empty = Candidates(*(np.empty(0, kind) for kind in (np.int64, KEY, KEY, float, float, np.int64)))
    return pages, Candidates(*(np.concatenate([getattr(one, name) for one in [empty, *parts]]) for name in Candidates.__dataclass_fields__))


def keys_of(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Keys of sixteen bytes: KEY [pages]."""
    found = batch.column(name).to_pylist()
    return np.frombuffer(b"".join(one if one else NO_KEY for one in found), KEY)


def seconds_of(times: np.ndarray) -> np.ndarray:
    """WARC dates (ISO 8601, UTC unless they say otherwise) as seconds since 1970, 0 where there is none that can be read."""
    found = np.zeros(len(times))
    for place, time in enumerate(times):
        try:
            date = datetime.fromisoformat(time) if time else None
        except ValueError:
            continue
        if date is not None:
            found[place] = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return found


def by_key(keys: np.ndarray) -> np.ndarray:
    """For each key the number of its group."""
    return np.unique(keys.view([("high", "<u8"), ("low", "<u8")]), return_inverse=True)[1] if len(keys) else np.empty(0, np.int64)


def by_address(found: Candidates) -> np.ndarray:
    """Groups of pages of one address within one snapshot's text or another's; a page without an address is a group of its own."""
    groups = by_key(found.addresses)
    alone = found.addresses == np.frombuffer(NO_KEY, KEY)[0]
    groups[alone] = len(groups) + np.arange(int(alone.sum()))
    return groups


def by_signature(recipe: WebRecipe, crawl: Crawl, found: Candidates, scratch: Path) -> np.ndarray:
    """Groups of near duplicates: for each page the first page of its cluster; a page without words has no signature and stays alone."""
    settings = recipe.duplicates
    builder = ClusterBuilder(scratch / "clusters", settings)
    signed = np.zeros(len(found.rows), bool)
    for numbers, batch in crawl.of_rows(found.rows, "signature"):
        signatures = batch.column(0)
        here = numbers[signatures.is_valid().to_numpy(zero_copy_only=False)]
        signed[here] = True
        rows, snapshots = matrix(signatures.drop_null(), settings.bands * settings.rows), found.snapshots[here]
        bounds = [0, *(np.flatnonzero(np.diff(snapshots)) + 1).tolist(), len(rows)] if len(rows) else []
        for start, stop in itertools.pairwise(bounds):
            builder.add(rows[start:stop], int(snapshots[start]))
    groups, places = np.arange(len(found.rows)), np.flatnonzero(signed)
    groups[places] = places[builder.settle()]
    return groups


def matrix(signatures: pa.Array, places: int) -> np.ndarray:
    """Stored signatures as uint32 [pages, places]."""
    return np.frombuffer(b"".join(signatures.to_pylist()), np.uint32).reshape(len(signatures), places)


def drop_groups(settled: Settled, found: Candidates, groups: np.ndarray, fate: int, latest: bool = False) -> Candidates:
    """Of each group the best page stays (with `latest` the one fetched last), of equals the first; returns those that stay."""
    if not len(groups):
        return found
    merit = (-found.merit, -found.fetched) if latest else (-found.merit,)
    order = np.lexsort((found.rows, *merit, groups))
    opens = np.r_[True, groups[order][1:] != groups[order][:-1]]
    best = order[opens][np.cumsum(opens) - 1]  # for each page in `order` the best of its group
    gone = order != best
    settled.fate[found.rows[order[gone]]] = fate
    settled.value[found.rows[order[gone]]] = 1.0
    settled.stays[found.rows[order[gone]]] = found.rows[best[gone]]
    return found.of(np.sort(order[opens]))


def measure_similarity(settled: Settled, crawl: Crawl) -> None:
    """The estimated similarity of each near duplicate to the page that stays for it."""
    rows = np.flatnonzero(settled.fate == NEAR)
    leaders = np.unique(settled.stays[rows])
    kept: dict[int, np.ndarray] = {}
    for numbers, batch in crawl.of_rows(leaders, "signature"):
        for number, one in zip(numbers.tolist(), batch.column(0).to_pylist(), strict=True):
            kept[int(leaders[number])] = np.frombuffer(one, np.uint32)
    for numbers, batch in crawl.of_rows(rows, "signature"):
        for number, one in zip(numbers.tolist(), batch.column(0).to_pylist(), strict=True):
            row = rows[number]
            settled.value[row] = float((np.frombuffer(one, np.uint32) == kept[int(settled.stays[row])]).mean())


def drop_contaminated(recipe: WebRecipe, settled: Settled, crawl: Crawl, found: Candidates) -> Candidates:
    """Pages with benchmark items in them are dropped; returns those that stay."""
    settled.contamination = Contamination.find(recipe.decontamination, crawl, found.rows)
    for place, item in settled.contamination.pages().items():
        settled.fate[place] = BY_FINDING[item.reason]
        settled.value[place] = item.long_grams if item.reason == "exact" else item.coverage
    return found.of(np.flatnonzero(settled.fate[found.rows] == PASSED))


def drop_emptied(recipe: WebRecipe, settled: Settled, crawl: Crawl, found: Candidates, scratch: Path) -> Candidates:
    """Finds the repeated lines and drops the pages that are too short without them; returns those that stay."""
    settled.lines = LineStep.count(recipe.lines, crawl, found.rows, scratch)
    rows, words = settled.lines.emptied(crawl, least_words(recipe))
    settled.fate[rows] = EMPTIED
    settled.value[rows] = words
    return found.of(np.flatnonzero(settled.fate[found.rows] == PASSED))


def least_words(recipe: WebRecipe) -> int:
    """How many words a page must have without its repeated lines; a page that nothing is left of is none, whatever the rules allow."""
    return max(recipe.rules.min_words, 1)


def chosen(keys: np.ndarray, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The held-out rows: those whose text hashes below `share`, so a page stays on its side when others come or go; one at least of two."""
    hashes = (xxhash.xxh3_64_intdigest(key, seed=seed % 2**64) / 2**64 for key in keys)
    numbers = np.fromiter(hashes, np.float64, len(keys))  # eight bytes a page, and no Python number of each
    found = rows[numbers < share]
    if not len(found) and share > 0 and len(rows) > 1:
        found = rows[[int(np.argmin(numbers))]]
    return found


def follow(settled: Settled) -> None:
    """A page that stayed for another may itself have gone for a third: everyone is told the last one."""
    while True:
        further = settled.stays[settled.stays]
        if np.array_equal(further, settled.stays):
            return
        settled.stays = further


def name_clusters(settled: Settled, crawl: Crawl) -> None:
    """The first page of each cluster, and the ids that rows will name."""
    settled.firsts = np.arange(len(settled.stays))
    gone = np.flatnonzero(settled.stays != settled.firsts)
    np.minimum.at(settled.firsts, settled.stays[gone], gone)  # of the page that stays: the first of its cluster
    settled.firsts[gone] = settled.firsts[settled.stays[gone]]
    wanted = np.unique(np.concatenate([settled.stays[gone], settled.firsts[gone]]))
    for numbers, batch in crawl.of_rows(wanted, "id"):
        settled.names.update(zip(wanted[numbers].tolist(), batch.column(0).to_pylist(), strict=True))
