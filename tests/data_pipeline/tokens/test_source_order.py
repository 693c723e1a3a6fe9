"""Sources of several blocks: every target once per epoch, any row at any time, and nothing packed that need not be."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from data_pipeline.tokens import shards as shards_module
from data_pipeline.tokens import source_order
from data_pipeline.tokens.mixture import IGNORED, Mixture, PhaseRecipe
from data_pipeline.tokens.mixture_history import EditedMixture, edited, first_history
from data_pipeline.tokens.packing import pack
from data_pipeline.tokens.shards import END_DTYPE, TokenShards
from data_pipeline.tokens.source_order import SourceOrder, blocks_of

T = 24
SHARD_LENGTHS = [np.random.default_rng(number).integers(1, 70, 40) for number in range(7)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """Seven shards in which every token is its own place in the long row, so that a row says where it comes from."""
    folder = tmp_path_factory.mktemp("web")
    entries, begin = [], 0
    for number, lengths in enumerate(SHARD_LENGTHS):
        names = {"tokens_file": f"tokens-{number:05d}.bin", "ends_file": f"ends-{number:05d}.bin"}
        tokens = int(lengths.sum())
        np.arange(begin, begin + tokens).astype("<u2").tofile(folder / names["tokens_file"])
        np.cumsum(lengths).astype(END_DTYPE).tofile(folder / names["ends_file"])
        entries.append({**names, "tokens": tokens, "documents": len(lengths), "tokens_sha256": str(number), "ends_sha256": str(number)})
        begin += tokens
    totals = {key: sum(entry[key] for entry in entries) for key in ("tokens", "documents")}
    manifest = {"format": 1, "source": "web", "dtype": "uint16", "vocab_size": 65_536, "tokenizer_sha256": "t", **totals}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "shards": entries}))
    return TokenShards.open(folder)


def in_blocks(shards: TokenShards, row_counts: tuple[int, ...] = ()) -> SourceOrder:
    return SourceOrder(shards, T, "0/web", row_counts, block_tokens=3000)


def places(order: SourceOrder, rows: range) -> list[list[tuple[int, int]]]:
    return [list(zip(*(part.tolist() for part in order.pieces(row)), strict=True)) for row in rows]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120))
def test_blocks_are_whole_shards_in_a_row(tokens: list[int], limit: int) -> None:
    blocks = blocks_of(tokens, limit)
    assert [place for block in blocks for place in range(*block)] == list(range(len(tokens)))
    assert all(sum(tokens[first:stop]) <= limit or stop - first == 1 for first, stop in blocks)
    assert all(sum(tokens[a:d]) > limit or b - a > 1 for (a, b), (_, d) in pairwise(blocks) if tokens[b] + sum(tokens[a:b]) > limit)


def test_one_block_is_one_packing_per_epoch(shards: TokenShards) -> None:
    """The order that sources of one block always had: checkpoints of earlier runs depend on it."""
    order, row = SourceOrder(shards, T, "0/web"), 0
    assert order.num_blocks == 1
    for epoch in range(3):
        expected = pack(shards.ends(), T, f"0/web/{epoch}")
        for number in range(expected.num_rows):
            assert all(np.array_equal(*pair) for pair in zip(order.pieces(row), expected.pieces(number), strict=True))
            assert order.locate(row) == (epoch, number)
            row += 1
        assert order.epochs_at(row) == epoch + 1
        assert order.targets_at(row) == (epoch + 1) * int(expected.targets_until[-1])


def test_an_epoch_of_blocks_gives_every_target_once(shards: TokenShards) -> None:
    order = in_blocks(shards)
    assert order.num_blocks > 2
    starts = np.concatenate([[0], shards.ends()[:-1]])
    once = Counter(set(range(shards.num_tokens)) - set(starts.tolist()))
    row, firsts = 0, []
    for epoch in range(3):
        seen: Counter[int] = Counter()
        firsts.append(places(order, range(row, row + 5)))
        while order.locate(row)[0] == epoch:
            for start, length in places(order, range(row, row + 1))[0]:
                seen.update(range(start + 1, start + length))
            row += 1
        assert seen == once
    assert firsts[0] != firsts[1] != firsts[2]
    assert order.locate(row) == (3, 0)
    visits = [order.block(visit) for visit in range(3 * order.num_blocks)]
    assert len({tuple(visits[n : n + order.num_blocks]) for n in range(0, len(visits), order.num_blocks)}) > 1  # epochs go other ways


def test_rows_can_be_asked_for_in_any_order(shards: TokenShards) -> None:
    forward, backward = places(in_blocks(shards), range(900)), list(reversed(range(900)))
    order = in_blocks(shards)
    assert [places(order, range(row, row + 1))[0] for row in backward] == forward[::-1]


def test_a_run_that_goes_on_packs_only_what_it_reads(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    before = in_blocks(shards)
    expected = places(before, range(700, 705))
    packed = []
    monkeypatch.setattr(source_order, "pack", lambda *args: packed.append(args) or pack(*args))
    after = in_blocks(shards, tuple(before.row_counts))
    assert places(after, range(700, 705)) == expected
    assert len(packed) <= 2
    assert after.epochs_at(5000) == before.epochs_at(5000)
    assert len(packed) <= 2
    wrong = in_blocks(shards, (before.row_counts[0] + 1, *before.row_counts[1:]))
    assert places(wrong, range(700, 705)) != expected  # so the numbers matter, and a checkpoint's hash guards them


def test_a_fresh_run_packs_one_block(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    monkeypatch.setattr(source_order, "pack", lambda *args: packed.append(args) or pack(*args))
    order = in_blocks(shards)
    order.epochs_at(100_000)
    order.targets_at(100_000)
    places(order, range(3))
    assert len(packed) == 1


def test_estimates_are_near(shards: TokenShards) -> None:
    order = in_blocks(shards)
    row = 0
    while order.locate(row)[0] < 2:
        row += 1
    assert order.epochs_at(row) == pytest.approx(2, rel=0.03)
    assert order.targets_at(row) == pytest.approx(2 * (shards.num_tokens - shards.num_documents), rel=0.03)
    assert 0.8 < order.fill() <= 1


def test_few_files_are_open(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 2)
    few, before = TokenShards.open(shards.folder), open_token_files()
    for start in np.random.default_rng(0).permutation(shards.num_tokens - 1)[:200].tolist():
        assert few.read(start, start + 1).tolist() == [start]
    assert open_token_files() - before == 2


def open_token_files() -> int:
    return sum(entry.resolve().name.startswith("tokens-") for entry in Path("/proc/self/fd").iterdir())


def test_a_mixture_over_blocks(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits, resumes and reports of a source of several blocks."""
    monkeypatch.setattr(source_order.SourceOrder.__init__, "__defaults__", ((), 3000))
    old = [PhaseRecipe(name="all", steps=60, weights={"web": 1.0}, max_epochs=2)]
    new = [PhaseRecipe(name="all", steps=70, weights={"web": 1.0}, max_epochs=2)]
    one = Mixture(old, {"web": shards}, T, 4, 7)
    two = EditedMixture(edited(first_history(old), new, 20), {"web": shards}, T, 4, 7, one.row_counts)
    rows = [(step, index) for step in range(60) for index in range(4)]
    assert all(np.array_equal(one.row(*place).ids, two.row(*place).ids) for place in rows)
    report = one.report()["sources"]["web"]
    held = sum(int((one.row(*place).targets != IGNORED).sum()) for place in rows)
    assert (report["estimated"], report["rows"]) == (True, 240)
    assert report["tokens"] == pytest.approx(held, rel=0.03)
    with pytest.raises(InputError, match=r"source web would be read [\d.]+ times, max_epochs is 2"):
        Mixture([PhaseRecipe(name="all", steps=1000, weights={"web": 1.0}, max_epochs=2)], {"web": shards}, T, 4, 7)


def test_other_blocks_are_other_data(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = [PhaseRecipe(name="all", steps=3, weights={"web": 1.0})]
    whole = Mixture(phases, {"web": shards}, T, 4, 7).fingerprint()
    monkeypatch.setattr(source_order.SourceOrder.__init__, "__defaults__", ((), 3000))
    assert Mixture(phases, {"web": shards}, T, 4, 7).fingerprint() != whole
